// Any model as one of our checkpoints: step 0, without optimizer state, for eval, generate and train --init.
#pragma once

#include <filesystem>

#include "train/checkpoint/model_source.h"

namespace vqlm {

/// Writes the checkpoint folder `out` (docs/checkpoints.md), tensor by tensor in boxes of rows; memory: two boxes of 16 MiB.
/// Its config.toml has the model's sizes and head, data.seq_len where the source tells it, and defaults for all else. Throws
/// UsageError where `out` is there and not an empty folder, and Error naming the file or tensor; nothing of `out` is left
/// then.
void write_model_checkpoint(const ModelSource& source, const std::filesystem::path& out);

}  // namespace vqlm
