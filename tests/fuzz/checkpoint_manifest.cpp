// A checkpoint's manifest.json; where the first byte is odd, with the hash that makes what follows vouch for itself.
#include "tests/fuzz/fuzz.h"
#include "train/checkpoint/hash.h"
#include "train/checkpoint/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  vqlm::fuzz::Choices choices(data, size);
  const bool vouch = choices.byte() % 2 == 1;
  std::string text(choices.rest());
  if (vouch) text += ",\n \"manifest_xxh3\": \"" + vqlm::xxh3_of(text.data(), text.size()) + "\"\n}\n";
  folder.write("manifest.json", text);
  vqlm::fuzz::expect_success_or_error([] { vqlm::read_manifest(folder.path()); });
  return 0;
}
