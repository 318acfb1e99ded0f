// prepare.json of a folder of shards.
#include "data/prepare/prepare_manifest.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  folder.write("prepare.json", {reinterpret_cast<const char*>(data), size});
  vqlm::fuzz::expect_success_or_error([] {
    const auto manifest = vqlm::PrepareManifest::load(folder.path());
    if (!manifest) abort();
    // What was read can be written, and means the same.
    manifest->save(folder.path());
    const auto again = vqlm::PrepareManifest::load(folder.path());
    if (!vqlm::difference(manifest->options, again->options).empty()) abort();
    if (manifest->sources.size() != again->sources.size()) abort();
  });
  return 0;
}
