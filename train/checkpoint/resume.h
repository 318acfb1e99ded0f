// Continuing a run, and checking shards against a checkpoint.
#pragma once

#include <optional>

#include "data/shard_set.h"
#include "dist/process_grid.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/run_folder.h"

namespace vqlm {

/// The newest complete checkpoint of the run, chosen and verified by rank 0 (collective), or none where it has none yet.
/// Throws UsageError where its model, head or order of samples is not the configuration's, naming the key, and Error for
/// damaged files and for other training shards.
std::optional<CheckpointReader> open_newest_checkpoint(Backend& backend, const ProcessGrid& grid,
                                                       const RunFolder& folder, const Config& config,
                                                       const ShardSet& train);

/// Throws Error where the shards were tokenized with another tokenizer than the checkpoint was trained on.
void check_tokenizer(const CheckpointReader& checkpoint, const ShardSet& shards);

}  // namespace vqlm
