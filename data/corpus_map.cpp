#include "data/corpus_map.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <numeric>

#include "data/map_fit.h"
#include "data/token_vectors.h"

namespace vqlm {
namespace {

/// Rows and weights of the tokens that share clusters. vectors (V, dims); counts (V).
WeightedVectors vectors_to_fit(const std::vector<float>& vectors, std::int64_t dims,
                               const std::vector<std::int64_t>& counts,
                               const std::vector<std::int32_t>& own) {
  std::vector<std::int64_t> tokens(counts.size());
  std::iota(tokens.begin(), tokens.end(), std::int64_t{0});
  tokens = without_tokens(tokens, own);
  WeightedVectors x{
      .rows = static_cast<std::int64_t>(tokens.size()), .dims = dims, .values = {}, .weight = {}};
  x.values.reserve(static_cast<std::size_t>(x.rows * dims));
  for (const std::int64_t token : tokens) {
    const auto row = vectors.begin() + token * dims;
    x.values.insert(x.values.end(), row, row + dims);
    // Square root: frequent tokens lead, but 10^5 times the count must not mean 10^5 times the say.
    x.weight.push_back(std::sqrt(static_cast<float>(counts[static_cast<std::size_t>(token)]) + 1));
  }
  return x;
}

}  // namespace

std::vector<std::int64_t> count_tokens(const ShardSet& shards, std::uint64_t max_tokens) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(shards.vocab_size()), 0);
  visit_tokens(shards, max_tokens, [&](std::span<const std::int32_t> tokens, std::size_t own) {
    for (const std::int32_t token : tokens.first(own)) ++counts[static_cast<std::size_t>(token)];
  });
  return counts;
}

CodeMap make_corpus_map(const ShardSet& shards, Backend& backend, const CorpusMapOptions& options) {
  return make_corpus_map(shards, count_tokens(shards, options.max_tokens), backend, options);
}

CodeMap make_corpus_map(const ShardSet& shards, const std::vector<std::int64_t>& counts, Backend& backend,
                        const CorpusMapOptions& options) {
  CodeMap map;
  map.vocab_size = shards.vocab_size();
  map.clusters = options.clusters;
  map.groups = options.groups;
  map.codes = options.groups > 0 ? options.codes : 0;
  check_code_map_sizes(map.vocab_size, map.clusters, map.groups, map.codes);
  VQLM_ASSERT(options.contexts >= 1 && options.dims >= 1);
  if (shards.total_tokens() < 2) {
    throw Error(fmt::format("{}: {} tokens; a corpus map counts neighbours and needs at least 2",
                            shards.glob(), shards.total_tokens()));
  }
  const std::int64_t counted = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});

  VQLM_ASSERT(options.own_tokens >= 0 && options.own_tokens < options.clusters);
  const std::vector<std::int32_t> own = most_frequent_tokens(counts, options.own_tokens);

  SparseRows neighbours = count_neighbours(shards, options.max_tokens, counts, options.contexts);
  to_positive_pmi(neighbours, 2);
  const int groups = std::max(options.groups, 1);
  const std::int64_t dims = static_cast<std::int64_t>((options.dims + groups - 1) / groups) * groups;
  WeightedVectors x =
      vectors_to_fit(truncated_svd(neighbours, static_cast<int>(dims), options.seed), dims, counts, own);
  centre_rotate_normalise(x, options.seed);
  map.vocab_size = x.rows;
  map.clusters = options.clusters - options.own_tokens;
  map.cluster_of_token = balanced_clusters(x, map.clusters, options.seed, backend);
  if (map.groups > 0) {
    subtract_cluster_means(x, map.cluster_of_token, map.clusters);
    map.member_codes = product_codes(x, map.groups, map.codes, options.seed);
  }
  map.provenance = fmt::format("corpus: neighbours of {} tokens of {}, {} contexts, {} dimensions, seed {}",
                               counted, shards.glob(), neighbours.columns / 2, x.dims, options.seed);
  return with_own_clusters(map, own);
}

}  // namespace vqlm
