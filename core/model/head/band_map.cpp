#include "core/model/head/band_map.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "core/error.h"

namespace vqlm {
namespace {

/// Tokens in an order of ranks (V), cut at the bands' ends.
CodeMap band_map(const AdaptiveHeadConfig& head, const std::vector<std::int32_t>& by_rank) {
  CodeMap map;
  map.vocab_size = static_cast<std::int64_t>(by_rank.size());
  map.clusters = head.bands();
  map.cluster_of_token.resize(by_rank.size());
  const std::vector<std::int64_t> cutoffs = cutoffs_of(head, map.vocab_size);
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    const auto band = std::ranges::upper_bound(cutoffs, static_cast<std::int64_t>(rank)) - cutoffs.begin();
    map.cluster_of_token[static_cast<std::size_t>(by_rank[rank])] = static_cast<std::int32_t>(band);
  }
  return map;
}

}  // namespace

CodeMap make_band_map(const AdaptiveHeadConfig& head, const std::vector<std::int64_t>& counts) {
  CodeMap map = band_map(head, most_frequent_tokens(counts, static_cast<std::int64_t>(counts.size())));
  map.counted_tokens = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(map.clusters), 0), asked(sizes);
  for (std::size_t token = 0; token < counts.size(); ++token) {
    const auto band = static_cast<std::size_t>(map.cluster_of_token[token]);
    ++sizes[band];
    asked[band] += counts[token];
  }
  std::vector<std::string> shares;
  for (const std::int64_t count : asked) {
    const auto total = static_cast<double>(std::max<std::int64_t>(map.counted_tokens, 1));
    shares.push_back(fmt::format("{:.1f}", 100 * static_cast<double>(count) / total));
  }
  map.provenance = fmt::format("bands by frequency: {} tokens, {} % of the counted text", fmt::join(sizes, " + "),
                               fmt::join(shares, " + "));
  return map;
}

void check_band_map(const CodeMap& map, const AdaptiveHeadConfig& head, const std::string& origin) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(map.clusters), 0);
  for (const std::int32_t band : map.cluster_of_token) ++sizes[static_cast<std::size_t>(band)];
  const std::vector<AdaptiveBand> bands = adaptive_bands(head, map.vocab_size, 1);
  for (std::size_t band = 0; band < sizes.size(); ++band) {
    if (sizes.size() == bands.size() && sizes[band] == bands[band].tokens) continue;
    throw Error(fmt::format("{}: bands of {} tokens do not fit head.cutoffs = [{}]", origin, fmt::join(sizes, " + "),
                            fmt::join(cutoffs_of(head, map.vocab_size), ", ")));
  }
}

CodeMap contiguous_band_map(const AdaptiveHeadConfig& head, std::int64_t vocab_size) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(vocab_size));
  std::iota(ids.begin(), ids.end(), 0);
  return band_map(head, ids);
}

}  // namespace vqlm
