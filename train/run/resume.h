// Continuing a run.
#pragma once

#include <optional>

#include "data/shards/shard_set.h"
#include "dist/process_grid.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/records/run_folder.h"

namespace vqlm {

/// The newest intact checkpoint of the run, or none where it has none yet (collective). Each rank compares its share of the
/// files with the manifest; a damaged checkpoint is passed over on all ranks, with a warning that names file and tensors.
/// Throws UsageError where its model, head or order of samples is not the configuration's, naming the key, and Error where
/// all checkpoints are damaged and for other training shards.
std::optional<CheckpointReader> open_newest_checkpoint(Backend& backend, const ProcessGrid& grid,
                                                       const RunFolder& folder, const Config& config,
                                                       const ShardSet& train);

/// Throws Error where the shards are not those that the run of the checkpoint is trained on: its order of samples exists for
/// them alone.
void check_training_shards(const CheckpointReader& checkpoint, const ShardSet& train);

/// The checkpoint that another run starts from, with its optimizer's state, its step and its place in the order of samples:
/// `path` itself, or the newest intact one of the run there (collective). Compared with the configuration as above.
CheckpointReader open_checkpoint_to_fork(Backend& backend, const ProcessGrid& grid, const std::filesystem::path& path,
                                         const Config& config, const ShardSet& train);

}  // namespace vqlm
