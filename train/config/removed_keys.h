// Keys that earlier versions had. A configuration, most of all one that a checkpoint holds, may still name them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/config/config.h"

namespace vqlm {

/// A key of an earlier version with the value that a file or --set gives it, as text.
struct RemovedKey {
  std::string name;    // "head.member_rank"
  std::string value;   // "64"
  std::string origin;  // "runs/a/config.toml:12", for messages
};

/// The name that a key has now, where an earlier version called it otherwise; else the name itself.
std::string_view renamed_key(std::string_view full_name);

bool is_removed_key(std::string_view full_name);

/// Passes over keys whose feature was off in `config`, which holds everything else that the file and --set say. Throws
/// UsageError, with the way out, for one whose feature was on and changes what a model computes, and says so of
/// one that only changed how it was trained.
void check_removed_keys(const std::vector<RemovedKey>& found, const Config& config);

}  // namespace vqlm
