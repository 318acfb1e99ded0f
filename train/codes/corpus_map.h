// A code map from the text itself: tokens whose neighbours in the corpus are alike share a cluster.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/model/head/code_map.h"
#include "data/shards/shard_set.h"
#include "train/codes/map_counts.h"

namespace vqlm {

/// How neighbour counts become vectors (token_vectors.h).
enum class VectorKind : std::uint8_t {
  ppmi,        // positive PMI, truncated SVD
  chi_square,  // correspondence analysis
};

struct CorpusMapOptions {
  std::int64_t clusters = 128;  // K
  int groups = 32;              // G; 0 = no member codes
  int codes = 128;              // Q; 0 where G = 0
  std::int64_t own_tokens = 0;  // the most frequent tokens that have clusters of their own; below K
  std::uint64_t seed = 0;
  int contexts = 2000;                    // the most frequent tokens, whose appearance beside a token is counted
  int dims = 128;                         // of the token vectors, rounded up to a multiple of G
  std::uint64_t max_tokens = 50'000'000;  // of shards that are counted by make_corpus_map
  VectorKind vectors = VectorKind::ppmi;
  std::vector<int> offsets = {1, -1};  // which neighbours count: places after the token, before it where negative
};

/// A map, and the vectors that it was fitted to.
struct FittedMap {
  CodeMap map;
  std::int64_t dims = 0;
  std::vector<float> vectors;  // (V, dims), turned as the codes' groups see them; zeros for tokens with own clusters
};

/// Vectors from neighbour statistics (token_vectors.h), then clusters and product codes of them (map_fit.h). The same
/// text, options and back end give the same map, whatever the number of ranks, which share the counting; the fit is the
/// root's, and the others get an empty map. Collective over `ranks`. counts (V): of the same text. Throws UsageError
/// for impossible sizes, Error where the shards hold fewer than two tokens.
FittedMap fit_corpus_map(const TextToCount& text, const std::vector<std::int64_t>& counts, Backend& backend,
                         const CorpusMapOptions& options, const CountingRanks& ranks = {});

/// The map alone, counted and made by one rank.
CodeMap make_corpus_map(const ShardSet& shards, Backend& backend, const CorpusMapOptions& options);

}  // namespace vqlm
