// A code map from the text itself: tokens whose neighbours in the corpus are alike share a cluster.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/model/code_map.h"
#include "data/shard_set.h"

namespace vqlm {

/// Counts (V) of the first max_tokens tokens' worth of blocks spread evenly over the stream, all tokens where the stream
/// is not longer; memory does not grow with the corpus.
std::vector<std::int64_t> count_tokens(const ShardSet& shards, std::uint64_t max_tokens);

struct CorpusMapOptions {
  std::int64_t clusters = 128;  // K
  int groups = 32;              // G; 0 = no member codes
  int codes = 128;              // Q; 0 where G = 0
  std::int64_t own_tokens = 0;  // the most frequent tokens that have clusters of their own; below K
  std::uint64_t seed = 0;
  int contexts = 2000;  // the most frequent tokens, whose appearance beside a token is counted
  int dims = 128;       // of the token vectors, rounded up to a multiple of G
  std::uint64_t max_tokens = 50'000'000;
};

/// Vectors from neighbour statistics (token_vectors.h), then clusters and product codes of them (map_fit.h). The same
/// shards, options and back end give the same map. Throws UsageError for impossible sizes, Error where the shards hold
/// fewer than two tokens.
CodeMap make_corpus_map(const ShardSet& shards, Backend& backend, const CorpusMapOptions& options);
/// The same where the counts of the first options.max_tokens tokens (V) are known already: one pass less.
CodeMap make_corpus_map(const ShardSet& shards, const std::vector<std::int64_t>& counts, Backend& backend,
                        const CorpusMapOptions& options);

}  // namespace vqlm
