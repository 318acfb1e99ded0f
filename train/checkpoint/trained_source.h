// What a checkpoint knows of a source of text that its run was trained on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/shards/shard_set.h"

namespace vqlm {

struct TrainedSource {
  std::string name;         // only_source where the run has no others
  std::int64_t tokens = 0;  // in its shards
  std::string shards;       // ShardSet::fingerprint(); empty where an earlier version, which took none, wrote it
};

/// Of all parts of `shards`. Reads both ends of each shard.
std::vector<TrainedSource> trained_sources(const ShardSet& shards);

/// As JSON and back. Throws Error naming `origin` for text that is none.
std::string to_json(const std::vector<TrainedSource>& sources);
std::vector<TrainedSource> trained_sources_from_json(const std::string& text, const std::string& origin);

}  // namespace vqlm
