// Which checkpoints of a run stay.
#pragma once

#include <cstdint>
#include <filesystem>

namespace vqlm {

struct Retention {
  int keep = 0;                 // newest ones; 0: all
  std::int64_t keep_every = 0;  // those of steps that this divides stay for good; 0: none
};

/// Removes a folder with what is in it, where it is there. What cannot be removed is logged and stays.
void remove_folder(const std::filesystem::path& path);

/// Removes what saves that were killed have left in `folder`, while none is under way.
void remove_unfinished(const std::filesystem::path& folder);

/// Removes checkpoints of `folder` that are not to stay. Those of steps beyond `newest`, the one just written, neither
/// count nor go: a run that fell back to an earlier checkpoint has passed them over.
void remove_old(const std::filesystem::path& folder, const Retention& retention, std::int64_t newest);

}  // namespace vqlm
