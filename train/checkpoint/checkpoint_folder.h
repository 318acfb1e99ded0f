// A checkpoint's folder from its rank files to its name: what one rank, or one process alone, does when all rank files are
// there. Layout: docs/checkpoints.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "train/checkpoint/manifest.h"
#include "train/checkpoint/virtual_file.h"

namespace vqlm {

/// "step-00001000".
std::string checkpoint_name(std::int64_t step);
/// The name that `checkpoint` has while it is written; no reader takes such a folder for a checkpoint.
std::filesystem::path partial_path(const std::filesystem::path& checkpoint);

/// What a checkpoint holds beside its rank files.
struct CheckpointDescription {
  std::string config;                                 // TOML
  std::vector<std::filesystem::path> tokenizer = {};  // files, copied in under their names
  VirtualFileExtras extras = {};
  TrainState state = {};
};

/// Adds checkpoint.h5, config.toml, the tokenizer's files and last the manifest to `folder`, which holds rank files 0 to
/// `ranks` - 1 with their tables; everything is durable afterwards. Throws Error naming the file.
void complete_checkpoint(const std::filesystem::path& folder, int ranks, const CheckpointDescription& description);

/// Renames a complete folder to its name, durably; a checkpoint that has the name makes way. Throws Error naming the folder.
void publish_checkpoint(const std::filesystem::path& partial, const std::filesystem::path& checkpoint);

}  // namespace vqlm
