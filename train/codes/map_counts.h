// Counts of tokens and of neighbouring tokens in the shards, streaming: what code maps are made of and judged by.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/shards/shard_set.h"
#include "train/codes/counting_ranks.h"

namespace vqlm {

/// Calls visit(tokens, own) with runs of neighbouring tokens of this rank's part of the stream: all of it where it has at
/// most max_tokens, else blocks of 64Ki tokens spread evenly over it, max_tokens in total (rounded up to whole blocks) over
/// all ranks. tokens holds the `own` tokens of the block and up to `following` that come after it.
void visit_tokens(const ShardSet& shards, std::uint64_t max_tokens,
                  const std::function<void(std::span<const std::int32_t> tokens, std::size_t own)>& visit,
                  const CountingRanks& ranks = {}, std::size_t following = 1);

/// Counts (V) over the tokens that visit_tokens shows, all of them where the stream is not longer than max_tokens.
/// Collective over the ranks, as is everything here; the same on each.
std::vector<std::int64_t> count_tokens(const ShardSet& shards, std::uint64_t max_tokens,
                                       const CountingRanks& ranks = {});

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
SparseRows count_neighbours(const ShardSet& shards, std::uint64_t max_tokens, const std::vector<std::int64_t>& counts,
                            int contexts, const std::vector<int>& offsets = {1, -1}, const CountingRanks& ranks = {});

}  // namespace vqlm
