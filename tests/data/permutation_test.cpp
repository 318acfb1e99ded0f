#include "data/shards/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace vqlm {
namespace {

TEST(Permutation, IsABijectionForEverySize) {
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t n = 1; n <= 130; ++n) sizes.push_back(n);
  for (const std::uint64_t n : {997, 1009, 1024, 4095, 4097, 10'007, 65'536, 65'537}) sizes.push_back(n);
  for (const std::uint64_t n : sizes) {
    const Permutation permutation(n, 7, 3);
    std::vector<bool> seen(n, false);
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t value = permutation(i);
      ASSERT_LT(value, n);
      ASSERT_FALSE(seen[value]) << "n = " << n << ", i = " << i;
      seen[value] = true;
    }
  }
}

TEST(Permutation, WorksForTheLargestCorpora) {
  const std::uint64_t n = 1'000'000'000'039;
  const Permutation permutation(n, 1, 0);
  for (const std::uint64_t i : {std::uint64_t{0}, std::uint64_t{1}, n / 2, n - 1}) EXPECT_LT(permutation(i), n);
  EXPECT_NE(permutation(0), permutation(1));
}

TEST(Permutation, DiffersBySeedAndEpochAndNothingElse) {
  constexpr std::uint64_t n = 10'007;
  const auto agreements = [](const Permutation& a, const Permutation& b) {
    int same = 0;
    for (std::uint64_t i = 0; i < n; ++i) same += a(i) == b(i) ? 1 : 0;
    return same;
  };
  const Permutation base(n, 1, 0);
  EXPECT_EQ(agreements(base, Permutation(n, 1, 0)), static_cast<int>(n));
  // Two random permutations agree at a number of places that is about Poisson with mean 1: P(more than 10) < 1e-8.
  EXPECT_LE(agreements(base, Permutation(n, 2, 0)), 10);
  EXPECT_LE(agreements(base, Permutation(n, 1, 1)), 10);
  EXPECT_LE(agreements(base, Permutation(n, std::uint64_t{1} << 32 | 1, 0)), 10);
  EXPECT_LE(agreements(base, Permutation(n, 1, std::uint64_t{1} << 32)), 10);
}

TEST(Permutation, SpreadsEveryPartOfTheInputOverTheWholeRange) {
  // Consecutive blocks of the input against blocks of the output: counts of a 16 x 16 table, chi-squared with about
  // 15 * 15 = 225 degrees of freedom (standard deviation sqrt(2 * 225) = 21): six of them are the bound.
  constexpr std::uint64_t n = 100'003;
  constexpr std::uint64_t parts = 16;
  for (std::uint64_t epoch = 0; epoch < 4; ++epoch) {
    const Permutation permutation(n, 5, epoch);
    std::vector<double> table(parts * parts, 0);
    for (std::uint64_t i = 0; i < n; ++i) table[i * parts / n * parts + permutation(i) * parts / n] += 1;
    const double expected = static_cast<double>(n) / (parts * parts);
    double chi_squared = 0;
    for (const double count : table) chi_squared += (count - expected) * (count - expected) / expected;
    EXPECT_LT(chi_squared, 225 + 6 * 21.2) << "epoch " << epoch;
    EXPECT_GT(chi_squared, 225 - 6 * 21.2) << "epoch " << epoch;
  }
}

TEST(Permutation, NeighboursAreNotKeptTogether) {
  // pi(i + 1) - pi(i) is spread over the whole range: a step within n / 100 has probability about 0.02.
  constexpr std::uint64_t n = 100'003;
  const Permutation permutation(n, 6, 0);
  double near = 0;
  for (std::uint64_t i = 0; i + 1 < n; ++i) {
    const auto step = static_cast<double>(permutation(i + 1)) - static_cast<double>(permutation(i));
    near += std::abs(step) < n / 100.0 ? 1 : 0;
  }
  const double expected = 0.0199 * n;
  EXPECT_NEAR(near, expected, 6 * std::sqrt(expected));
}

TEST(Permutation, SmallSetsSeeAllOrders) {
  // 4 elements have 24 orders; 2,000 epochs must show every one.
  std::vector<int> seen(256, 0);
  for (std::uint64_t epoch = 0; epoch < 2000; ++epoch) {
    const Permutation p(4, 9, epoch);
    ++seen[p(0) * 64 + p(1) * 16 + p(2) * 4 + p(3)];
  }
  int orders = 0;
  for (const int count : seen) orders += count > 0 ? 1 : 0;
  EXPECT_EQ(orders, 24);
}

}  // namespace
}  // namespace vqlm
