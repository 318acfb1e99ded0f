// Token shards with odd attributes and datasets.
#include "data/shards/token_shards.h"
#include "tests/fuzz/hdf5_file.h"

namespace vqlm {

static void write_shard(const std::string& path, fuzz::Choices& choices) {
  fuzz::H5FileMaker file(path, choices);
  file.attribute("format", std::string(shard_format));
  file.attribute("version", shard_version);
  file.attribute("vocab_size", 300);
  file.attribute("eos_id", 2);
  file.attribute("tokenizer_sha256", std::string("abc"));
  file.attribute("sources", std::string(R"([{"path":"a","bytes":1,"sha256":"b"}])"));
  file.attribute("document_count", 2);
  file.attribute("token_count", 6);
  file.attribute("text_bytes", 9);
  file.dataset("tokens", H5T_STD_U16LE, {6}, {3, 4, 2, 299, 5, 2});
  file.dataset("documents", H5T_STD_U64LE, {3}, {0, 3, 6});
  file.dataset("bytes", H5T_STD_U64LE, {2}, {4, 5});
}

}  // namespace vqlm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  vqlm::fuzz::Choices choices(data, size);
  const std::string path = folder.file("shard.h5");
  vqlm::write_shard(path, choices);
  vqlm::fuzz::expect_success_or_error([&] { vqlm::ShardReader(path).verify(); });
  return 0;
}
