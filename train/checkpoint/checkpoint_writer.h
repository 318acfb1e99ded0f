// Saves a run: every rank writes the slices that its optimizer owns, rank 0 a file of virtual datasets that shows each
// logical tensor whole, then the manifest. Layout: docs/checkpoints.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/model/code_map.h"
#include "dist/process_grid.h"
#include "train/checkpoint/manifest.h"
#include "train/config.h"
#include "train/optimizer.h"

namespace vqlm {

/// What a checkpoint takes in. All pointers and references are only read; `map` is null for dense heads.
struct CheckpointContents {
  Backend& backend;
  const ParameterStore& parameters;
  const Optimizer& optimizer;
  const Config& config;
  const CodeMap* map = nullptr;
  std::vector<std::filesystem::path> tokenizer;  // files, copied in
  std::string tokenizer_sha256;                  // of the training shards
  std::int64_t train_tokens = 0;                 // in the training shards
  TrainState state;
};

/// Writes `folder`/step-... over all ranks (collective) under a temporary name and renames it into place; an existing
/// folder of that name is replaced. Then removes the oldest checkpoints beyond the newest `keep` (0 = none). Returns the
/// checkpoint's path. Throws Error naming the file; the earlier checkpoints stay.
std::filesystem::path save_checkpoint(const std::filesystem::path& folder, const ProcessGrid& grid,
                                      const CheckpointContents& contents, int keep);

}  // namespace vqlm
