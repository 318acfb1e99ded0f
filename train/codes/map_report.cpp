#include "train/codes/map_report.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"

namespace vqlm {
namespace {

/// The value of which a part `quantile` of the sorted values is below.
std::int64_t quantile_of(const std::vector<std::int64_t>& sorted, double quantile) {
  return sorted[static_cast<std::size_t>(quantile * static_cast<double>(sorted.size() - 1) + 0.5)];
}

void add_mass(const CodeMap& map, const std::vector<std::int64_t>& counts, MapSummary& summary) {
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  if (total == 0) return;
  summary.mass.assign(summary.sizes.size(), 0);
  double scored = 0;
  for (std::size_t v = 0; v < counts.size(); ++v) {
    const auto k = static_cast<std::size_t>(map.cluster_of_token[v]);
    const double p = static_cast<double>(counts[v]) / total;
    summary.mass[k] += p;
    if (summary.sizes[k] > 1) scored += p * static_cast<double>(summary.sizes[k]);
  }
  double entropy = 0;
  for (const double p : summary.mass) entropy -= p > 0 ? p * std::log(p) : 0;
  summary.members_scored = scored;
  summary.cluster_perplexity = std::exp(entropy);
}

}  // namespace

KnownMap open_map(const std::string& path) {
  return {path, load_code_map(path), load_map_evidence(path)};
}

MapSummary summarise(const KnownMap& known) {
  const CodeMap& map = known.map;
  MapSummary summary;
  summary.sizes.assign(static_cast<std::size_t>(map.clusters), 0);
  for (const std::int32_t k : map.cluster_of_token) ++summary.sizes[static_cast<std::size_t>(k)];
  std::vector<std::int64_t> sorted = summary.sizes;
  std::sort(sorted.begin(), sorted.end());
  for (const double q : {0.0, 0.25, 0.5, 0.75, 1.0}) summary.size_quartiles.push_back(quantile_of(sorted, q));
  summary.one_token_clusters = std::count(sorted.begin(), sorted.end(), 1);
  summary.bytes = map.vocab_size * (static_cast<std::int64_t>(sizeof(std::int32_t)) + map.groups);
  if (!known.evidence.counts.empty()) add_mass(map, known.evidence.counts, summary);
  const std::int64_t dims = known.evidence.dims;
  if (dims > 0 && (map.groups == 0 || dims % map.groups == 0)) {
    summary.bands = distortion_by_frequency(map, known.evidence.vectors, dims, known.evidence.counts);
  }
  return summary;
}

std::vector<std::int64_t> choose_clusters(const KnownMap& known, const MapSummary& summary,
                                          const std::vector<std::int64_t>& asked, int n) {
  const std::int64_t clusters = known.map.clusters;
  for (const std::int64_t k : asked) {
    if (k < 0 || k >= clusters) {
      throw UsageError(fmt::format("--clusters {}: {} has clusters 0 to {}", k, known.path, clusters - 1));
    }
  }
  if (!asked.empty()) return asked;
  std::vector<std::int64_t> order(static_cast<std::size_t>(clusters));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto weight = [&](std::int64_t k) {
    const auto i = static_cast<std::size_t>(k);
    return summary.mass.empty() ? static_cast<double>(summary.sizes[i]) : summary.mass[i];
  };
  // Of a cluster of one token there is nothing to see but the token.
  std::erase_if(order, [&](std::int64_t k) { return summary.sizes[static_cast<std::size_t>(k)] < 2; });
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return weight(a) > weight(b); });
  const auto first = std::min(order.size(), static_cast<std::size_t>(n));
  const Philox rng(0, "codes.show");
  for (std::size_t i = first; i < std::min(order.size(), 2 * first); ++i) {
    std::swap(order[i], order[i + rng.below(i, order.size() - i)]);
  }
  order.resize(std::min(order.size(), 2 * first));
  return order;
}

}  // namespace vqlm
