// Counts of tokens and of neighbouring tokens in the shards, streaming: what code maps are made of and judged by.
#pragma once

#include <cstdint>
#include <vector>

#include "data/shards/shard_set.h"
#include "train/codes/counting_ranks.h"
#include "train/codes/text_to_count.h"

namespace vqlm {

/// Counts (V) over the text. Collective over the ranks, as is everything here; the same on each.
std::vector<std::int64_t> count_tokens(const TextToCount& text, const CountingRanks& ranks = {});
/// The same of a stream, all of it where it is not longer than max_tokens.
inline std::vector<std::int64_t> count_tokens(const ShardSet& shards, std::uint64_t max_tokens,
                                              const CountingRanks& ranks = {}) {
  return count_tokens(TextToCount(shards, max_tokens), ranks);
}

/// A sparse matrix in compressed rows.
struct SparseRows {
  std::int64_t columns = 0;
  std::vector<std::int64_t> row_begin;  // (rows + 1)
  std::vector<std::int32_t> column;     // rising within a row
  std::vector<float> value;

  std::int64_t rows() const { return static_cast<std::int64_t>(row_begin.size()) - 1; }
};

/// How often each token stands beside each of the C contexts, the C tokens with the largest counts (ties: the smaller
/// id first): (V, offsets * C). Column p C + c: context c stands offsets[p] places after the token, before it where
/// negative. Memory: 16 bytes for each distinct pair of the result and a fixed buffer, whatever the length of the corpus;
/// with several ranks another 64 MiB.
SparseRows count_neighbours(const TextToCount& text, const std::vector<std::int64_t>& counts, int contexts,
                            const std::vector<int>& offsets = {1, -1}, const CountingRanks& ranks = {});
inline SparseRows count_neighbours(const ShardSet& shards, std::uint64_t max_tokens,
                                   const std::vector<std::int64_t>& counts, int contexts,
                                   const std::vector<int>& offsets = {1, -1}, const CountingRanks& ranks = {}) {
  return count_neighbours(TextToCount(shards, max_tokens), counts, contexts, offsets, ranks);
}

}  // namespace vqlm
