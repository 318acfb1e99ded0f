// Do drawn tokens follow their probabilities? Pearson's chi-square test.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace vqlm::testing {

/// The statistic's excess over its 1 - 1e-5 quantile (Wilson and Hilferty's approximation): above 0, the counts do not
/// follow the probabilities. Tokens with fewer than 10 expected draws are one cell together.
inline double chi_square_excess(const std::vector<std::int64_t>& counts, const std::vector<double>& probabilities) {
  double draws = 0;
  for (std::int64_t n : counts) draws += static_cast<double>(n);
  double statistic = 0, cells = 0, rare_expected = 0, rare_seen = 0;
  const auto add_cell = [&](double seen, double expected) {
    statistic += (seen - expected) * (seen - expected) / expected;
    ++cells;
  };
  for (std::size_t v = 0; v < counts.size(); ++v) {
    const double expected = draws * probabilities[v];
    if (expected >= 10) {
      add_cell(static_cast<double>(counts[v]), expected);
    } else {
      rare_expected += expected;
      rare_seen += static_cast<double>(counts[v]);
    }
  }
  if (rare_seen > 0 || rare_expected > 1) add_cell(rare_seen, std::max(rare_expected, 1e-3));
  const double freedom = std::max(cells - 1, 1.0), spread = 2 / (9 * freedom);
  return statistic - freedom * std::pow(1 - spread + 4.265 * std::sqrt(spread), 3);
}

/// p(v)^(1 / temperature), normalised, from log p(v).
inline std::vector<double> tempered(const std::vector<double>& log_probs, double temperature) {
  const double largest = *std::max_element(log_probs.begin(), log_probs.end());
  std::vector<double> p;
  double sum = 0;
  for (double x : log_probs) {
    p.push_back(std::exp((x - largest) / temperature));
    sum += p.back();
  }
  for (double& x : p) x /= sum;
  return p;
}

}  // namespace vqlm::testing
