// Code maps by the names that head.map and `vqlm codes make` give them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend.h"
#include "core/communicator.h"
#include "data/shards/shard_set.h"
#include "train/codes/corpus_map.h"
#include "train/codes/counting_ranks.h"

namespace vqlm {

/// Counting over the ranks of a group, whose collectives go through the back end's memory; both must outlive the
/// result.
CountingRanks counting_ranks(Backend& backend, Communicator& group);

/// What head.map said in runs of earlier versions that re-fitted their map while they trained; checkpoints hold the
/// last.
inline constexpr std::string_view learned_map = "learned";

/// "random", "contiguous", "frequency" and "corpus".
bool is_made_map(const std::string& name);

/// The map `name` (is_made_map) with the sizes, own tokens and seed of `options`, and for a corpus map the vectors that
/// it was fitted to. counts (V): of the text. Collective over `ranks`; the root's result
/// counts, the others' may be empty. The same result for every number of ranks. Throws UsageError for impossible sizes.
FittedMap make_code_map(const std::string& name, const CorpusMapOptions& options, const TextToCount& text,
                        const std::vector<std::int64_t>& counts, Backend& backend, const CountingRanks& ranks);

}  // namespace vqlm
