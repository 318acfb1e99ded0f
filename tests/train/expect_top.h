// What OutputHead::most_probable() promises, checked against the log-probabilities of all tokens.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "core/model/head/token_choice.h"

namespace vqlm::testing {

/// More than all probabilities together: only the count ends a search.
constexpr double no_mass = 2;

/// The same probabilities in the same order as the full row, up to `tolerance`; as many as promised.
inline void expect_top(const std::vector<TokenLogProb>& actual, const std::vector<float>& row, std::int64_t count,
                       double mass, double tolerance) {
  std::vector<std::size_t> order(row.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });
  ASSERT_LE(actual.size(), row.size());
  std::vector<bool> seen(row.size(), false);
  double total = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const auto token = static_cast<std::size_t>(actual[i].token);
    ASSERT_FALSE(seen[token]);
    seen[token] = true;
    EXPECT_NEAR(actual[i].log_prob, row[token], tolerance) << "token " << token;
    EXPECT_NEAR(actual[i].log_prob, row[order[i]], tolerance) << "place " << i;
    if (i > 0) {
      EXPECT_FALSE(less_probable(actual[i - 1], actual[i])) << "place " << i;
      EXPECT_LT(total, mass);  // not done before
    }
    total += std::exp(static_cast<double>(actual[i].log_prob));
  }
  const bool enough = static_cast<std::int64_t>(actual.size()) == std::max<std::int64_t>(count, 1) || total >= mass;
  EXPECT_TRUE(enough || actual.size() == row.size());
  EXPECT_LE(static_cast<std::int64_t>(actual.size()), std::max<std::int64_t>(count, 1));
}

}  // namespace vqlm::testing
