#include "train/codes/map_refit.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "train/codes/class_vectors.h"
#include "train/codes/map_fit.h"

namespace vqlm {
namespace {

// Of on_coarse_grid(). Class means are noisy, and 2 % of their variance does not matter; member vectors of different
// codes must not fall together, and there are few of them.
constexpr double mean_steps = 2, member_steps = 8;

/// As in corpus maps: frequent tokens lead, but 10^5 times the count must not mean 10^5 times the say.
std::vector<float> fit_weights(const std::vector<std::int64_t>& counts) {
  std::vector<float> weight(counts.size());
  std::transform(counts.begin(), counts.end(), weight.begin(),
                 [](std::int64_t count) { return std::sqrt(static_cast<float>(count) + 1); });
  return weight;
}

/// Rows of x (V, dims) of some tokens.
WeightedVectors rows_of(const std::vector<float>& x, std::int64_t dims, const std::vector<float>& weight,
                        const std::vector<std::int32_t>& tokens) {
  WeightedVectors rows{.rows = static_cast<std::int64_t>(tokens.size()), .dims = dims, .values = {}, .weight = {}};
  for (const std::int32_t token : tokens) {
    const auto row = x.begin() + token * dims;
    rows.values.insert(rows.values.end(), row, row + dims);
    rows.weight.push_back(weight[static_cast<std::size_t>(token)]);
  }
  return rows;
}

void normalise_rows(WeightedVectors& x) {
  const auto dims = static_cast<std::size_t>(x.dims);
  for (std::size_t begin = 0; begin < x.values.size(); begin += dims) {
    float* const row = x.values.data() + begin;
    const double norm = std::sqrt(std::inner_product(row, row + dims, row, 0.0));
    for (std::size_t i = 0; i < dims && norm > 0; ++i) row[i] = static_cast<float>(static_cast<double>(row[i]) / norm);
  }
}

/// The clusters of some tokens, numbered from 0 in the order of their numbers; empty where they are not `count`.
std::vector<std::int32_t> start_of(const std::vector<std::int32_t>& cluster_of_token,
                                   const std::vector<std::int32_t>& tokens, std::int64_t count) {
  std::vector<std::int32_t> used;
  for (const std::int32_t token : tokens) used.push_back(cluster_of_token[static_cast<std::size_t>(token)]);
  std::vector<std::int32_t> start = used;
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  if (static_cast<std::int64_t>(used.size()) != count) return {};
  for (std::int32_t& cluster : start)
    cluster = static_cast<std::int32_t>(std::lower_bound(used.begin(), used.end(), cluster) - used.begin());
  return start;
}

/// The tokens that share clusters, by rising id.
std::vector<std::int32_t> sharing_tokens(std::size_t vocab_size, const std::vector<std::int32_t>& own) {
  std::vector<std::int32_t> tokens(vocab_size);
  std::iota(tokens.begin(), tokens.end(), 0);
  return without_tokens(tokens, own);
}

/// Codes (V, G) for tokens that are in `next` clusters. residual: class means beside their clusters', of the sharing
/// tokens.
std::vector<std::uint8_t> fit_codes(const CodeMap& map, const HeadArrays& values, const HeadAtZero& zero,
                                    const CodeMap& next, const WeightedVectors& residual,
                                    const std::vector<std::int32_t>& tokens, std::uint64_t seed) {
  const std::int64_t groups = map.groups, width = values.d_model / groups, part = residual.dims / groups;
  std::vector<std::uint8_t> codes = next.member_codes;
#pragma omp parallel for schedule(dynamic)  // groups do not depend on each other
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::vector<double> wanted = wanted_members(map, values, zero, next.cluster_of_token, static_cast<int>(g));
    std::vector<double> kept, learned;
    std::vector<std::uint8_t> start;
    for (std::size_t row = 0; row < tokens.size(); ++row) {
      const std::int64_t token = tokens[row];
      kept.insert(kept.end(), wanted.begin() + token * width, wanted.begin() + (token + 1) * width);
      const auto from = residual.values.begin() + static_cast<std::int64_t>(row) * residual.dims + g * part;
      learned.insert(learned.end(), from, from + part);
      start.push_back(map.member_codes[static_cast<std::size_t>(token * groups + g)]);
    }
    const std::vector<float> keep = on_coarse_grid(kept, member_steps), learn = on_coarse_grid(learned, member_steps);
    WeightedVectors x{.rows = residual.rows, .dims = width + part, .values = {}, .weight = residual.weight};
    for (std::int64_t row = 0; row < x.rows; ++row) {
      x.values.insert(x.values.end(), keep.begin() + row * width, keep.begin() + (row + 1) * width);
      x.values.insert(x.values.end(), learn.begin() + row * part, learn.begin() + (row + 1) * part);
    }
    const std::vector<std::uint8_t> fitted = product_codes(x, 1, map.codes, seed, start);
    for (std::size_t row = 0; row < tokens.size(); ++row)
      codes[static_cast<std::size_t>(tokens[row] * groups + g)] = fitted[row];
  }
  return codes;
}

}  // namespace

Refit refit_map(const CodeMap& map, const HeadArrays& values, const ClassSums& sums,
                const std::vector<std::int64_t>& counts, const RefitOptions& options, Backend& backend) {
  const std::vector<std::int32_t> own = most_frequent_tokens(counts, options.own_tokens);
  const std::vector<std::int32_t> tokens = sharing_tokens(counts.size(), own);
  const std::vector<float> weight = fit_weights(counts);
  std::vector<double> means = shrunk_class_means(sums, map.cluster_of_token, map.clusters);
  subtract_mean(means, sums.dims, weight);
  WeightedVectors x = rows_of(on_coarse_grid(means, mean_steps), sums.dims, weight, tokens);
  normalise_rows(x);

  CodeMap rest{.vocab_size = x.rows,
               .clusters = map.clusters - options.own_tokens,
               .groups = map.groups,
               .codes = map.codes,
               .cluster_of_token = {},
               .member_codes = {},
               .provenance = {}};
  const std::vector<std::int32_t> start = start_of(map.cluster_of_token, tokens, rest.clusters);
  rest.cluster_of_token = balanced_clusters(x, rest.clusters, options.seed, backend, start);
  rest.member_codes.resize(tokens.size() * static_cast<std::size_t>(map.groups));
  const auto seen = std::accumulate(sums.counts.begin(), sums.counts.end(), std::int64_t{0});
  rest.provenance = fmt::format("re-fit: hidden states of {} tokens of {}, {} dimensions, seed {}", seen,
                                options.source, sums.dims, options.seed);
  // Both are text: that of the hidden states, and that which weighs the tokens.
  rest.counted_tokens = std::max(seen, std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  Refit fit{.map = with_own_clusters(rest, own)};
  const HeadAtZero zero = head_at_zero(map, values);
  fit.map.cluster_of_token = named_after(map.cluster_of_token, fit.map.cluster_of_token, map.clusters, zero);
  if (map.groups > 0) {
    subtract_cluster_means(x, rest.cluster_of_token, rest.clusters);
    fit.map.member_codes = fit_codes(map, values, zero, fit.map, x, tokens, options.seed);
  }
  double all = 0;
  for (std::size_t v = 0; v < counts.size(); ++v) {
    all += static_cast<double>(counts[v]);
    if (fit.map.cluster_of_token[v] == map.cluster_of_token[v]) continue;
    fit.moved_tokens += 1 / static_cast<double>(counts.size());
    fit.moved_mass += static_cast<double>(counts[v]);
  }
  fit.moved_mass /= std::max(all, 1.0);
  return fit;
}

}  // namespace vqlm
