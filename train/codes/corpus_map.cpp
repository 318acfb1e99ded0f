#include "train/codes/corpus_map.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <cmath>
#include <numeric>

#include "train/codes/map_fit.h"
#include "train/codes/token_vectors.h"

namespace vqlm {
namespace {

/// Rows and weights of the tokens that share clusters. vectors (V, dims); counts (V).
WeightedVectors vectors_to_fit(const std::vector<float>& vectors, std::int64_t dims,
                               const std::vector<std::int64_t>& counts, const std::vector<std::int32_t>& own) {
  std::vector<std::int64_t> tokens(counts.size());
  std::iota(tokens.begin(), tokens.end(), std::int64_t{0});
  tokens = without_tokens(tokens, own);
  WeightedVectors x{.rows = static_cast<std::int64_t>(tokens.size()), .dims = dims, .values = {}, .weight = {}};
  x.values.reserve(static_cast<std::size_t>(x.rows * dims));
  for (const std::int64_t token : tokens) {
    const auto row = vectors.begin() + token * dims;
    x.values.insert(x.values.end(), row, row + dims);
    // Square root: frequent tokens lead, but 10^5 times the count must not mean 10^5 times the say.
    x.weight.push_back(std::sqrt(static_cast<float>(counts[static_cast<std::size_t>(token)]) + 1));
  }
  return x;
}

std::vector<float> make_vectors(SparseRows neighbours, int dims, const CorpusMapOptions& options) {
  if (options.vectors == VectorKind::chi_square) {
    return chi_square_vectors(std::move(neighbours), dims, options.seed);
  }
  to_positive_pmi(neighbours, static_cast<int>(options.offsets.size()));
  return truncated_svd(neighbours, dims, options.seed);
}

/// What of the options is not the default; maps of the default say what they always said.
std::string vectors_text(const CorpusMapOptions& options) {
  std::string text;
  if (options.vectors == VectorKind::chi_square) text += ", chi-square";
  if (options.offsets != CorpusMapOptions{}.offsets)
    text += fmt::format(", neighbours at {}", fmt::join(options.offsets, " "));
  return text;
}

/// The fitted rows at the places of their tokens; zeros for the tokens with clusters of their own.
std::vector<float> rows_of_all_tokens(const WeightedVectors& x, std::size_t vocab_size,
                                      const std::vector<std::int32_t>& own) {
  if (own.empty()) return x.values;
  std::vector<bool> left_out(vocab_size, false);
  for (const std::int32_t token : own) left_out[static_cast<std::size_t>(token)] = true;
  const auto dims = static_cast<std::size_t>(x.dims);
  std::vector<float> all(vocab_size * dims, 0.0f);
  std::size_t row = 0;
  for (std::size_t token = 0; token < vocab_size; ++token) {
    if (left_out[token]) continue;
    std::copy_n(x.values.data() + row++ * dims, dims, all.data() + token * dims);
  }
  return all;
}

void check_options(const ShardSet& shards, const CorpusMapOptions& options) {
  check_code_map_sizes(shards.vocab_size(), options.clusters, options.groups, options.groups > 0 ? options.codes : 0);
  VQLM_ASSERT(options.contexts >= 1 && options.dims >= 1 && !options.offsets.empty());
  VQLM_ASSERT(options.own_tokens >= 0 && options.own_tokens < options.clusters);
  if (shards.total_tokens() < 2) {
    throw Error(fmt::format("{}: {} tokens; a corpus map counts neighbours and needs at least 2", shards.glob(),
                            shards.total_tokens()));
  }
}

}  // namespace

CodeMap make_corpus_map(const ShardSet& shards, Backend& backend, const CorpusMapOptions& options) {
  const TextToCount text(shards, options.max_tokens);
  return fit_corpus_map(text, count_tokens(text), backend, options).map;
}

FittedMap fit_corpus_map(const TextToCount& text, const std::vector<std::int64_t>& counts, Backend& backend,
                         const CorpusMapOptions& options, const CountingRanks& ranks) {
  check_options(text.shards(), options);
  SparseRows neighbours = count_neighbours(text, counts, options.contexts, options.offsets, ranks);
  if (!ranks.is_root()) return {};
  const std::int64_t contexts = neighbours.columns / static_cast<std::int64_t>(options.offsets.size());
  const int groups = std::max(options.groups, 1);
  const int dims = (options.dims + groups - 1) / groups * groups;
  const std::vector<std::int32_t> own = most_frequent_tokens(counts, options.own_tokens);
  WeightedVectors x = vectors_to_fit(make_vectors(std::move(neighbours), dims, options), dims, counts, own);
  centre_rotate_normalise(x, options.seed);
  FittedMap fitted;
  fitted.dims = dims;
  fitted.vectors = rows_of_all_tokens(x, counts.size(), own);
  CodeMap& map = fitted.map;
  map.vocab_size = x.rows;
  map.clusters = options.clusters - options.own_tokens;
  map.groups = options.groups;
  map.codes = options.groups > 0 ? options.codes : 0;
  map.cluster_of_token = balanced_clusters(x, map.clusters, options.seed, backend);
  if (map.groups > 0) {
    subtract_cluster_means(x, map.cluster_of_token, map.clusters);
    map.member_codes = product_codes(x, map.groups, map.codes, options.seed);
  }
  map.counted_tokens = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  map.provenance =
      fmt::format("corpus: neighbours of {} tokens of {}, {} contexts, {} dimensions{}, seed {}", map.counted_tokens,
                  text.shards().glob(), contexts, x.dims, vectors_text(options), options.seed);
  map = with_own_clusters(map, own);
  return fitted;
}

}  // namespace vqlm
