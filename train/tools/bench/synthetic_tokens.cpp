#include "train/tools/bench/synthetic_tokens.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"

namespace vqlm {

std::vector<std::int64_t> synthetic_counts(TokenDistribution distribution, std::int64_t vocab_size) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(vocab_size), 1);
  if (distribution == TokenDistribution::uniform) return counts;
  for (std::size_t token = 0; token < counts.size(); ++token) {
    counts[token] = 1 + static_cast<std::int64_t>(1e9 / (static_cast<double>(token) + 2.7));
  }
  return counts;
}

std::vector<std::int32_t> draw_tokens(const std::vector<std::int64_t>& counts, std::int64_t count, std::uint64_t seed,
                                      std::string_view name) {
  std::vector<std::int64_t> cumulative(counts.size());
  std::inclusive_scan(counts.begin(), counts.end(), cumulative.begin());
  const Philox rng(seed, name);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto at = static_cast<std::int64_t>(rng.below(i, static_cast<std::uint64_t>(cumulative.back())));
    const auto token = std::upper_bound(cumulative.begin(), cumulative.end(), at) - cumulative.begin();
    tokens[i] = static_cast<std::int32_t>(token);
  }
  return tokens;
}

}  // namespace vqlm
