// One of our checkpoints as a ModelSource.
#pragma once

#include "train/checkpoint/checkpoint_reader.h"
#include "train/models/model_source.h"

namespace vqlm {

class CheckpointSource : public ModelSource {
 public:
  /// `folder`: of the checkpoint itself (find_checkpoint tells). Verify::yes compares every file with the manifest. Throws
  /// Error naming a file that is missing or damaged.
  CheckpointSource(const std::filesystem::path& folder, Verify verify);

  const std::filesystem::path& path() const override { return reader_.folder(); }
  std::string description() const override;
  const ModelConfig& model() const override { return reader_.config().model; }
  const HeadConfig& head() const override { return reader_.config().head; }
  std::optional<CodeMap> code_map() const override { return reader_.code_map(); }
  std::vector<TensorInfo> tensors() const override;
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override;
  std::vector<std::filesystem::path> tokenizer_files() const override;
  std::string tokenizer_sha256() const override { return reader_.tokenizer_sha256(); }
  std::int64_t seq_len() const override { return reader_.config().data.seq_len; }

  const CheckpointReader& reader() const { return reader_; }
  /// False for a converted model, which no run can resume from.
  bool has_optimizer() const;

 private:
  CheckpointReader reader_;
  h5::File file_;
};

}  // namespace vqlm
