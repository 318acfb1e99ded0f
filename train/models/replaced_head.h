// A model whose output head is replaced, as a ModelSource over the one it is made from: the trunk is read through, the
// head's tensors are held or computed.
#pragma once

#include <map>

#include "train/checkpoint/model_source.h"
#include "train/engine/planned_model.h"

namespace vqlm {

/// What all replacements share. `trunk` must outlive it.
class ReplacedHead : public ModelSource {
 public:
  const std::filesystem::path& path() const override { return trunk_.path(); }
  std::string description() const override;
  const ModelConfig& model() const override { return model_; }
  const HeadConfig& head() const override { return head_; }
  std::vector<TensorInfo> tensors() const override;
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override;
  std::vector<std::filesystem::path> tokenizer_files() const override { return trunk_.tokenizer_files(); }
  std::string generation_config() const override { return trunk_.generation_config(); }
  std::string tokenizer_sha256() const override { return trunk_.tokenizer_sha256(); }
  std::int64_t seq_len() const override { return trunk_.seq_len(); }
  bool trained_here() const override { return trunk_.trained_here(); }

 protected:
  enum class Tied { no, yes };
  /// The head given owns its matrices, so that the model's embedding is tied no more, or is a dense one tied to it.
  ReplacedHead(const ModelSource& trunk, HeadConfig head, Tied tied = Tied::no);

  const ModelSource& trunk() const { return trunk_; }
  const std::vector<LogicalTensor>& logical() const { return logical_; }
  /// A box of one of the head's tensors.
  virtual std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const = 0;

 private:
  const ModelSource& trunk_;
  ModelConfig model_;
  HeadConfig head_;
  std::vector<LogicalTensor> logical_;
};

/// A VQ head held in memory: its map and its tensors, by name.
class VqReplacement : public ReplacedHead {
 public:
  /// Sizes of map and tensors must be those of `head`.
  VqReplacement(const ModelSource& trunk, HeadConfig head, CodeMap map,
                std::map<std::string, std::vector<float>> tensors);

  std::optional<CodeMap> code_map() const override { return map_; }

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override;

  CodeMap map_;
  std::map<std::string, std::vector<float>> tensors_;
};

/// The model without its heads for later tokens.
class WithoutFutureHeads : public ReplacedHead {
 public:
  explicit WithoutFutureHeads(const ModelSource& trunk)
      : ReplacedHead(trunk, without_future(trunk.head()), trunk.model().tie_embeddings ? Tied::yes : Tied::no) {}

  std::string description() const override { return trunk().description(); }
  std::optional<CodeMap> code_map() const override { return trunk().code_map(); }

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override {
    return trunk().read(name, offset, extent);
  }
};

/// All of a tensor of the source. Throws Error where it has none of that name.
std::vector<float> read_whole(const ModelSource& source, const std::string& name);

}  // namespace vqlm
