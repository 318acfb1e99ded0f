// Token vectors from neighbour counts: positive pointwise mutual information and a truncated SVD.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/backend.h"
#include "data/shard_set.h"

namespace vqlm {

/// Calls visit(tokens, own) with runs of neighbouring tokens of the stream: all of it where it has at most max_tokens,
/// else blocks of 64Ki tokens spread evenly over it, max_tokens in total (rounded up to whole blocks). tokens holds the
/// `own` tokens of the block and the one that follows it, where there is one.
void visit_tokens(const ShardSet& shards, std::uint64_t max_tokens,
                  const std::function<void(std::span<const std::int32_t> tokens, std::size_t own)>& visit);

/// A sparse matrix in compressed rows.
struct SparseRows {
  std::int64_t columns = 0;
  std::vector<std::int64_t> row_begin;  // (rows + 1)
  std::vector<std::int32_t> column;     // rising within a row
  std::vector<float> value;

  std::int64_t rows() const { return static_cast<std::int64_t>(row_begin.size()) - 1; }
};

/// How often each token stands beside each of the C contexts, the C tokens with the largest counts (ties: the smaller
/// id first): (V, 2C). Column c: context c is the next token; column C + c: it is the one before. Memory: 16 bytes for
/// each distinct pair of the result and a fixed buffer, whatever the length of the corpus.
SparseRows count_neighbours(const ShardSet& shards, std::uint64_t max_tokens,
                            const std::vector<std::int64_t>& counts, int contexts);

/// Replaces counts n(v, c) by max(0, log(n(v, c) / (n(v) q(c)))), q(c) ~ n(c)^0.75 with sum 1, for the `parts` equal
/// ranges of columns on their own. Levy, Goldberg and Dagan, "Improving distributional similarity with lessons learned
/// from word embeddings", TACL 2015 (the power takes weight from rare contexts).
void to_positive_pmi(SparseRows& counts, int parts);

/// X (V, dims) = U S^(1/2) of the truncated SVD A ~ U S V^T; columns beyond the rank of A are 0. Randomized range
/// finder with 4 power iterations: Halko, Martinsson and Tropp, SIAM Review 2011.
std::vector<float> truncated_svd(const SparseRows& a, int dims, std::uint64_t seed);

}  // namespace vqlm
