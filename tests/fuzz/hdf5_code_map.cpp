// Code maps with odd attributes and datasets.
#include "tests/fuzz/hdf5_file.h"
#include "train/codes/code_map_file.h"

namespace vqlm {

static void write_code_map(const std::string& path, fuzz::Choices& choices) {
  fuzz::H5FileMaker file(path, choices);
  file.attribute("format", std::string("vqlm-code-map"));
  file.attribute("version", 1);
  file.attribute("vocab_size", 4);
  file.attribute("clusters", 2);
  file.attribute("groups", 2);
  file.attribute("codes", 3);
  file.attribute("provenance", std::string("made up"));
  file.dataset("cluster_of_token", H5T_STD_I32LE, {4}, {0, 1, 0, 1});
  file.dataset("member_codes", H5T_STD_U8LE, {4, 2}, {0, 1, 2, 0, 1, 2, 0, 1});
}

}  // namespace vqlm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  vqlm::fuzz::Choices choices(data, size);
  const std::string path = folder.file("map.h5");
  vqlm::write_code_map(path, choices);
  vqlm::fuzz::expect_success_or_error([&] { vqlm::load_code_map(path); });
  return 0;
}
