// What a map is re-fitted to: exact sums, shrunk means, the coarse grid and the projection.
#include "train/codes/class_sums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/rng.h"
#include "train/codes/class_vectors.h"
#include "train/tools/refit/hidden_rows.h"

namespace vqlm {
namespace {

std::vector<float> drawn(std::size_t count, std::uint64_t seed) {
  const Philox rng(seed, "values");
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = 3 * rng.normal(i);
  return values;
}

TEST(ClassSums, AreTheSameInAnyOrderAndPartition) {
  constexpr std::size_t rows = 1000, dims = 5;
  const std::vector<float> x = drawn(rows * dims, 1);
  std::vector<std::int32_t> targets(rows);
  for (std::size_t n = 0; n < rows; ++n) targets[n] = static_cast<std::int32_t>(n * n % 7) - 1;
  ClassSums once(6, dims), backwards(6, dims);
  once.add(x, targets);
  for (std::size_t n = rows; n-- > 0;)
    backwards.add(std::span(x).subspan(n * dims, dims), std::span(targets).subspan(n, 1));
  EXPECT_EQ(once.sums, backwards.sums);
  EXPECT_EQ(once.counts, backwards.counts);
  // Against double precision: each of a token's rows is rounded to 2^-20 once.
  double sum = 0;
  for (std::size_t n = 0; n < rows; ++n) {
    if (targets[n] == 3) sum += static_cast<double>(x[n * dims + 2]);
  }
  EXPECT_NEAR(once.sum(3, 2), sum, static_cast<double>(once.counts[3]) * 0x1p-21);
  EXPECT_EQ(std::accumulate(once.counts.begin(), once.counts.end(), std::int64_t{0}),
            std::count_if(targets.begin(), targets.end(), [](std::int32_t t) { return t >= 0; }));
}

TEST(ClassSums, HugeValuesAreCut) {
  ClassSums sums(1, 1);
  sums.add(std::vector<float>{1e30f}, std::vector<std::int32_t>{0});
  EXPECT_EQ(sums.sum(0, 0), ClassSums::largest);
}

TEST(ClassVectors, RareTokensLeanOnTheirCluster) {
  ClassSums sums(4, 1);
  const std::vector<std::int32_t> clusters = {0, 0, 1, 1};
  for (int i = 0; i < 24; ++i) sums.add(std::vector<float>{2.0f}, std::vector<std::int32_t>{0});
  for (int i = 0; i < 8; ++i) sums.add(std::vector<float>{6.0f}, std::vector<std::int32_t>{1});
  // Cluster 0 has (48 + 48) / 32 = 3; cluster 1 has no rows, so its prior is that of all rows, 3, too.
  const std::vector<double> means = shrunk_class_means(sums, clusters, 2);
  EXPECT_DOUBLE_EQ(means[0], (48 + prior_rows * 3) / (24 + prior_rows));
  EXPECT_DOUBLE_EQ(means[1], (48 + prior_rows * 3) / (8 + prior_rows));
  EXPECT_DOUBLE_EQ(means[2], 3);
  EXPECT_DOUBLE_EQ(means[3], 3);
  EXPECT_EQ(shrunk_class_means(ClassSums(4, 1), clusters, 2), std::vector<double>(4, 0.0));
}

TEST(ClassVectors, TheMeanIsWeighted) {
  std::vector<double> x = {1, 10, 5, 20};
  subtract_mean(x, 2, {3, 1});
  EXPECT_EQ(x, (std::vector<double>{-1, -2.5, 3, 7.5}));
}

TEST(ClassVectors, TheCoarseGridHidesTheLastBits) {
  const std::vector<float> drawn_values = drawn(20000, 2);
  std::vector<double> x(drawn_values.begin(), drawn_values.end()), noisy = x;
  const Philox rng(5, "noise");
  for (std::size_t i = 0; i < x.size(); ++i) noisy[i] *= 1 + 1e-9 * static_cast<double>(rng.normal(i));
  const std::vector<float> on_grid = on_coarse_grid(x, 8);
  EXPECT_EQ(on_grid, on_coarse_grid(noisy, 8));
  EXPECT_NE(x, noisy);
  // Steps of an eighth of the root mean square: values are off by 8 / sqrt(12) % of it, uniformly.
  double squares = 0, errors = 0;
  for (std::size_t i = 0; i < x.size(); ++i) squares += x[i] * x[i];
  const double step = std::sqrt(squares / static_cast<double>(x.size())) / 8;
  for (std::size_t i = 0; i < x.size(); ++i) errors += std::pow(static_cast<double>(on_grid[i]) - x[i] / step, 2);
  EXPECT_NEAR(errors / static_cast<double>(x.size()), 1.0 / 12, 0.01);
  EXPECT_EQ(on_coarse_grid({0, 0}, 8), (std::vector<float>{0, 0}));
}

TEST(ProjectionMatrix, HasOrthonormalColumnsInBlocks) {
  constexpr std::int64_t d = 24, r = 12;
  const std::vector<float> matrix = projection_matrix(d, r, 4, 9);
  const auto at = [&](std::int64_t i, std::int64_t c) {
    return static_cast<double>(matrix[static_cast<std::size_t>(i * r + c)]);
  };
  for (std::int64_t a = 0; a < r; ++a) {
    for (std::int64_t b = 0; b < r; ++b) {
      double dot = 0;
      for (std::int64_t i = 0; i < d; ++i) dot += at(i, a) * at(i, b);
      EXPECT_NEAR(dot, a == b ? 1 : 0, 1e-6);
    }
  }
  for (std::int64_t i = 0; i < d; ++i) {
    for (std::int64_t c = 0; c < r; ++c) {
      if (i / 6 == c / 3) continue;
      EXPECT_EQ(at(i, c), 0) << i << ", " << c;
    }
  }
  EXPECT_NE(projection_matrix(d, r, 4, 10), matrix);
}

TEST(ProjectionMatrix, IsTheIdentityWhereNothingIsLeftOut) {
  const std::vector<float> matrix = projection_matrix(6, 6, 2, 9);
  for (std::size_t i = 0; i < 6; ++i) {
    for (std::size_t c = 0; c < 6; ++c) EXPECT_EQ(matrix[i * 6 + c], i == c ? 1 : 0);
  }
}

TEST(ProjectionMatrix, DimensionsAreAMultipleOfTheGroupsAndAtMostTheWidth) {
  EXPECT_EQ(projected_dims(96, 48, 50), 96);
  EXPECT_EQ(projected_dims(96, 48, 48), 48);
  EXPECT_EQ(projected_dims(96, 0, 48), 48);
  EXPECT_EQ(projected_dims(96, 0, 1000), 96);
}

}  // namespace
}  // namespace vqlm
