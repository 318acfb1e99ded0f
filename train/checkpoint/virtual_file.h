// checkpoint.h5: every logical tensor of a checkpoint whole, as a virtual dataset over the rank files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"
#include "train/checkpoint/rank_file.h"
#include "train/checkpoint/trained_source.h"

namespace vqlm {

/// What checkpoint.h5 holds beside the tensors.
struct VirtualFileExtras {
  const CodeMap* map = nullptr;             // null for heads without one
  std::string tokenizer_sha256;             // of the shards that the model was trained on
  std::vector<TrainedSource> sources = {};  // empty: not saved by a run
  bool trained_here = false;                // ModelSource::trained_here(), where no run saves it
};

/// Writes `folder`/checkpoint.h5 over the slices in the rank files' tables, which together must cover every tensor once.
/// Throws Error naming the file.
void write_virtual_file(const std::filesystem::path& folder, const std::vector<RankTable>& tables,
                        const VirtualFileExtras& extras);

}  // namespace vqlm
