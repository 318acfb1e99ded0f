// Which kind of model a path holds.
#pragma once

#include <filesystem>
#include <memory>

#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/model_source.h"

namespace vqlm {

/// What a user names with --checkpoint or --input: a checkpoint folder, a run folder (its newest complete checkpoint), or
/// a Hugging Face folder (config.json and safetensors). A checkpoint is compared with its manifest first. Throws Error
/// where it is none of them, or one that this program cannot run, and says why.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path);
/// Without the comparison: for all ranks but the first, and where damage is found soon enough on reading.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path, Verify verify);

}  // namespace vqlm
