// Files of ids. Bits 0 and 1 of the first byte choose NumPy, llm.c or by content, or a Megatron-LM pair, whose index is
// the next N bytes (a uint16) and whose .bin file is the rest; bit 2 an end of text.
#include "data/prepare/token_arrays.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  vqlm::fuzz::Choices choices(data, size);
  const std::uint8_t choice = choices.byte();
  std::string path;
  std::string_view ids;
  if (choice % 4 == 3) {
    const std::size_t index_bytes = choices.number(2);
    ids = choices.rest();
    const std::string_view index = ids.substr(0, index_bytes);
    ids.remove_prefix(index.size());
    folder.write("pair.idx", index);
    path = folder.write("pair.bin", ids);
  } else {
    ids = choices.rest();
    path = folder.write(choice % 4 == 0 ? "a.npy" : "a.bin", ids);
  }
  const std::int64_t vocab_size = (choice & 8) != 0 ? std::int64_t{1} << 31 : 50257;
  vqlm::fuzz::expect_success_or_error([&] {
    const auto eos = (choice & 4) != 0 ? std::optional<std::uint32_t>(0) : std::nullopt;
    vqlm::TokenDocuments documents(path, vocab_size, eos);
    std::size_t count = 0;
    for (std::vector<std::uint32_t> document; documents.next(document);) {
      if (document.empty() || document.size() > ids.size()) abort();
      for (const std::uint32_t id : document) {
        if (id >= vocab_size) abort();
      }
      count += document.size();
    }
    if (count > ids.size()) abort();
  });
  return 0;
}
