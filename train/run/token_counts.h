// The text that a run counts before its first step: for the token biases that every head starts with, and for a code map that
// the run makes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/checkpoint/manifest.h"
#include "train/codes/text_to_count.h"
#include "train/config/config.h"

namespace vqlm {

/// The samples that a run which stands at `place` has read at its end.
std::int64_t planned_samples(const Config& config, const TrainState& place);

/// The different tokens among these: what a map may see without an advantage.
std::int64_t trained_tokens(const Config& config, const ShardSet& train, const TrainState& place);

/// By run.counted_samples: what the run trains on, or where that is 0 all of the shards; at most 200 million tokens.
TextToCount text_to_count(const Config& config, const ShardSet& train, const TrainState& place);

/// Counts (V of the shards). Text that is all of several sources' shards counts each source by the weight with which the run
/// begins. Collective over `ranks`.
std::vector<std::int64_t> count_text(const TextToCount& text, const Config& config, const CountingRanks& ranks);

/// What is counted, in a line. trained: trained_tokens().
std::string describe_counted(const TextToCount& text, std::int64_t trained);

}  // namespace vqlm
