#include "train/models/checkpoint_source.h"

#include <spdlog/fmt/fmt.h>

#include "data/tokenizer/tokenizer_files.h"
#include "train/checkpoint/checkpoint_layout.h"
#include "train/models/logical_tensors.h"

namespace vqlm {

CheckpointSource::CheckpointSource(const std::filesystem::path& folder, Verify verify)
    : reader_(folder, verify), file_(h5::File::open((folder / checkpoint_file).string())) {
  if (reader_.config().model.vocab_size > 0) return;
  throw Error(fmt::format("{}: model.vocab_size is 0; a checkpoint's configuration says all sizes",
                          (folder / "config.toml").string()));
}

std::string CheckpointSource::description() const {
  return fmt::format("checkpoint, step {}", reader_.state().step);
}

std::vector<ModelSource::TensorInfo> CheckpointSource::tensors() const {
  std::vector<TensorInfo> infos;
  for (const LogicalTensor& tensor : logical_tensors(model(), head())) {
    infos.push_back({tensor.name, tensor.shape, "float32"});
  }
  return infos;
}

std::vector<float> CheckpointSource::read(const std::string& name, const Shape& offset,
                                          const Shape& extent) const {
  if (!file_.exists(name)) {
    throw Error(
        fmt::format("{}: has no tensor {}, which its configuration promises; the checkpoint is damaged",
                    file_.path(), name));
  }
  std::vector<float> values(static_cast<std::size_t>(extent.numel()));
  file_.dataset(name).read(std::span(values), dims_of(offset), dims_of(extent));
  return values;
}

bool CheckpointSource::has_optimizer() const {
  return file_.exists(std::string(first_moment_prefix) + "model.norm.weight");
}

std::vector<std::filesystem::path> CheckpointSource::tokenizer_files() const {
  return vqlm::tokenizer_files(path());
}

}  // namespace vqlm
