// Text files: the first byte chooses the name (JSON lines, plain text, by content; plain or compressed).
#include "data/prepare/document.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  static vqlm::DocumentParser parser("text");
  constexpr const char* names[] = {"a.jsonl", "a.txt", "a", "a.jsonl.gz", "a.jsonl.zst", "a.txt.gz"};
  vqlm::fuzz::Choices choices(data, size);
  const std::uint8_t choice = choices.byte();
  const std::string path = folder.write(names[choice % std::size(names)], choices.rest());
  vqlm::fuzz::expect_success_or_error([&] {
    // Short records, so that the limit is passed by small inputs.
    vqlm::TextReader reader(path, choice < 128 ? 200 : vqlm::TextReader::default_max_record_bytes);
    std::size_t bytes = 0;
    for (vqlm::TextReader::Record record; reader.next(record);) {
      const auto result = parser.parse(reader.format(), record);
      if (result.good) bytes += result.text.size();
      if (!result.good && vqlm::describe(result.reason) == "?") abort();
    }
    if (reader.file_bytes_read() > choices.rest().size()) abort();
  });
  return 0;
}
