// Loads checkpoints on any process grid: each rank reads its own slices of the logical tensors.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "core/model/head/code_map.h"
#include "data/hdf5/h5.h"
#include "train/checkpoint/manifest.h"
#include "train/config/config.h"
#include "train/codes/class_sums.h"
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

class CheckpointReader {
 public:
  /// Verify::yes compares every file with the manifest (by one rank alone; resume.h spreads it over all). Throws Error naming the file.
  CheckpointReader(std::filesystem::path folder, Verify verify);

  const std::filesystem::path& folder() const { return folder_; }
  const TrainState& state() const { return manifest_.state; }
  /// The configuration of the run that saved it.
  const Config& config() const { return config_; }
  /// Of the tokenizer of the shards that it was trained on.
  std::string tokenizer_sha256() const;
  /// Tokens in the shards that it was trained on.
  std::int64_t train_tokens() const;
  /// The VQ head's map; none for a dense head.
  std::optional<CodeMap> code_map() const;
  /// What a learned map's unfinished window had gathered; none where the checkpoint holds none. Throws Error naming the dataset
  /// that is damaged.
  std::optional<ClassSums> class_sums() const;
  /// Fills the store's values. Throws Error naming the tensor that is missing or has another shape.
  void load_parameters(ParameterStore& parameters) const;
  /// Fills the optimizer's moments for the ranges that it owns.
  void load_optimizer(Backend& backend, const ParameterStore& parameters, const Optimizer& optimizer) const;

 private:
  /// The box of a logical tensor at `offset`, `extent` long, after checking the tensor's shape.
  std::vector<float> read_box(const std::string& name, const Shape& global_shape, const Shape& offset,
                              const Shape& extent) const;

  std::filesystem::path folder_;
  Manifest manifest_;
  Config config_;
  h5::File file_;
};

}  // namespace vqlm
