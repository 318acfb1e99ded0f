// The door to a checkpoint: the model in it, and what a run needs to go on, on any process grid; each rank reads its own
// slices of the logical tensors.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "core/box.h"
#include "data/hdf5/h5.h"
#include "train/checkpoint/model_source.h"
#include "train/checkpoint/trained_source.h"
#include "train/engine/optimizer.h"

namespace vqlm {

struct ListedCheckpoint {
  std::int64_t step = 0;
  std::filesystem::path path;
};

/// The folders step-... of `folder` that have a readable manifest, in the order of their steps; none where `folder` does
/// not exist. `unreadable`, where given, takes what is wrong with the others. Files are not compared with the manifest.
std::vector<ListedCheckpoint> list_checkpoints(const std::filesystem::path& folder,
                                               std::vector<std::string>* unreadable = nullptr);

/// What a user means by --checkpoint: a checkpoint folder itself, or a run folder, whose newest readable checkpoint is taken,
/// with a warning for every one that is not. Throws Error where there is none, with the reason.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);

enum class Verify { no, yes };

class CheckpointReader : public ModelSource {
 public:
  /// `folder`: of the checkpoint itself (find_checkpoint tells). Verify::yes compares every file with the manifest (by one
  /// rank alone; resume.h spreads it over all). Throws Error naming the file that is missing or damaged.
  CheckpointReader(std::filesystem::path folder, Verify verify);

  const std::filesystem::path& path() const override { return folder_; }
  std::string description() const override;
  const ModelConfig& model() const override { return config_.model; }
  const HeadConfig& head() const override { return config_.head; }
  std::optional<CodeMap> code_map() const override;
  std::vector<TensorInfo> tensors() const override;
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override;
  std::vector<std::filesystem::path> tokenizer_files() const override;
  /// Of the tokenizer of the shards that it was trained on.
  std::string tokenizer_sha256() const override;
  std::int64_t seq_len() const override { return config_.data.seq_len; }
  /// The configuration of the run that saved it.
  Config config() const override { return config_; }
  std::optional<SavedRun> run() const override;
  bool trained_here() const override;

  const TrainState& state() const { return manifest_.state; }
  /// What the run that saved it is trained on; empty for a converted model. Throws Error where the file is damaged.
  std::vector<TrainedSource> sources() const;
  /// Whether the head's own moments are the checkpoint's, or stay 0, since it has another head.
  enum class HeadMoments { saved, none };
  /// Fills what a run has beside its model: moving averages, and the optimizer's moments for the ranges that it owns. Throws
  /// Error naming a tensor that is missing or has another shape.
  void load_training_state(Backend& backend, ParameterStore& parameters, const Optimizer& optimizer,
                           HeadMoments head = HeadMoments::saved) const;

 private:
  /// Throws Error where the file has no tensor of that name.
  h5::Dataset dataset(const std::string& name) const;
  /// Throws Error where it has another shape, too.
  h5::Dataset checked_dataset(const std::string& name, const Shape& global_shape) const;
  /// A box of a tensor that must have this shape.
  std::vector<float> read_box(const std::string& name, const Shape& global_shape, const Box& box) const;
  void load_moments(Backend& backend, const ParameterStore& parameters, const Optimizer& optimizer,
                    HeadMoments head) const;

  std::filesystem::path folder_;
  Manifest manifest_;
  Config config_;
  h5::File file_;
};

}  // namespace vqlm
