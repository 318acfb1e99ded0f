// What training reads before its first step: shards, unigram counts and, for a VQ or an adaptive head, the code map.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"
#include "data/shards/shard_set.h"
#include "dist/process_grid.h"
#include "train/checkpoint/manifest.h"
#include "train/checkpoint/model_source.h"
#include "train/config/config.h"

namespace vqlm {

struct HeldoutSet {
  std::string name;  // empty: the only one
  ShardSet shards;
};

struct TrainingInputs {
  ShardSet train;  // of all sources (train/run/mixture.h)
  std::vector<HeldoutSet> heldout;
  std::vector<std::int64_t> counts;              // (V) of the text that the run counts; empty where it counts none
  std::optional<CodeMap> map;                    // of a VQ or an adaptive head
  std::vector<std::filesystem::path> tokenizer;  // its files beside the shards (data/tokenizer/tokenizer_files.h)
};

/// Opens the shards of the configuration. Throws Error where they are missing, damaged or of different vocabularies.
ShardSet open_training_shards(const Config& config);
/// The held-out sets, none where the configuration names none. Throws Error where their tokenizer is not the training
/// shards', UsageError where shards of them are among the training shards.
std::vector<HeldoutSet> open_heldout_shards(const Config& config, const ShardSet& train);

/// Throws UsageError where a map is not the one that the configuration describes; `origin`: its file, or how it was
/// made.
void check_map(const CodeMap& map, const Config& config, const std::string& origin);

/// `train --init`: the model keeps its own map, unless head.map names a file with another one of the same sizes; then
/// its head is carried over to that (train/models/carried_model.h). Collective. Throws UsageError where that cannot be.
/// config must be resolved and describe the model (check_initial_model). A map of the shards' vocabulary gets clusters for
/// rows that only pad the model's.
std::unique_ptr<ModelSource> on_named_map(std::unique_ptr<ModelSource> initial, const Config& config,
                                          const ShardSet& train, Backend& backend, Communicator& world);

/// Counts tokens on all ranks (train/run/token_counts.h), makes the map on rank 0 and gives it to all (collective; the same
/// for every number of ranks). A map in hand (from a checkpoint) is taken as it is. A run that goes on from a place has its
/// biases, and counts only where a map is made. config must be resolved.
TrainingInputs make_training_inputs(Backend& backend, const ProcessGrid& grid, const Config& config, ShardSet train,
                                    std::optional<CodeMap> map,
                                    const std::optional<TrainState>& goes_on_from = std::nullopt);

}  // namespace vqlm
