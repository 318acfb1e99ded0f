// A tokenizer.json: of byte-level BPE the file, then a text to ids and back; of a SentencePiece model its file.
#include "data/tokenizer/tokenizer_json.h"

#include "data/tokenizer/sentencepiece_json.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  vqlm::fuzz::expect_success_or_error([&] {
    const auto kept = vqlm::sentencepiece_of_json(json, "tokenizer.json");
    if (!kept) return;
    const std::string model = vqlm::write_sentencepiece(*kept);
    if (vqlm::read_sentencepiece(model, "tokenizer.model").pieces.size() != kept->pieces.size()) abort();
    static_cast<void>(vqlm::tokenizer_json_of(*kept, "tokenizer.model"));
  });
  vqlm::fuzz::expect_success_or_error([&] {
    const auto tokenizer =
        vqlm::make_byte_level_bpe(vqlm::read_tokenizer_json(json, "tokenizer.json"), "tokenizer.json");
    std::vector<std::uint32_t> ids;
    tokenizer->encode("It's 123  caf\xC3\xA9 e\xCC\x81 <s> \r\n\xE4\xB8\xAD ", ids);
    for (const std::uint32_t id : ids) {
      if (id >= tokenizer->vocab_size()) abort();
    }
    static_cast<void>(tokenizer->decode(std::vector<std::int32_t>(ids.begin(), ids.end())));
  });
  return 0;
}
