// Random rows by weight, the same for the same seed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace vqlm {

class WeightedSample {
 public:
  /// Weights above 0.
  WeightedSample(const std::vector<float>& weight, std::uint64_t seed, std::string_view stream)
      : cumulative_(weight.begin(), weight.end()), weight_(weight), rng_(seed, stream) {
    std::partial_sum(cumulative_.begin(), cumulative_.end(), cumulative_.begin());
  }

  /// One row with probability in proportion to its weight.
  std::int64_t draw() {
    const double at = static_cast<double>(rng_.bits(next_++) >> 11) * 0x1p-53 * cumulative_.back();
    const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, at);
    return found - cumulative_.begin();
  }

  /// `n` different rows: those with the smallest -log(u) / w (Efraimidis and Spirakis, "Weighted random sampling with a
  /// reservoir", 2006).
  std::vector<std::int64_t> without_replacement(std::int64_t n) {
    VQLM_ASSERT(n <= static_cast<std::int64_t>(weight_.size()));
    std::vector<std::pair<double, std::int64_t>> keys;
    for (std::size_t row = 0; row < weight_.size(); ++row) {
      const double u = (static_cast<double>(rng_.bits(next_++) >> 11) + 1) * 0x1p-53;  // (0, 1]
      keys.emplace_back(-std::log(u) / static_cast<double>(weight_[row]), static_cast<std::int64_t>(row));
    }
    std::partial_sort(keys.begin(), keys.begin() + n, keys.end());
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < n; ++i) rows.push_back(keys[static_cast<std::size_t>(i)].second);
    return rows;
  }

 private:
  std::vector<double> cumulative_;
  const std::vector<float>& weight_;
  Philox rng_;
  std::uint64_t next_ = 0;
};

}  // namespace vqlm
