#include "train/codes/map_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/cpu/cpu_backend.h"
#include "core/rng.h"
#include "train/codes/balanced_assignment.h"

namespace vqlm {
namespace {

TEST(MapFit, GreedyAndExchangesReachTheBestBalancedAssignmentOfASmallCase) {
  // Three rows want cluster 0, which has room for two; row 0 loses least by leaving.
  const std::vector<float> similarity{0.9f, 0.8f, 0.9f, 0.1f, 0.9f, 0.2f, 0.1f, 0.9f};
  const std::vector<float> weight{1, 1, 1, 1};
  BalancedAssignment assignment(similarity, weight, 2);
  assignment.assign_greedily();
  assignment.exchange(4, 1);
  EXPECT_THAT(assignment.cluster_of_row(), testing::ElementsAre(1, 0, 0, 1));
}

TEST(MapFit, ExchangesNeverLowerTheSumAndKeepSizes) {
  constexpr std::size_t rows = 500;
  constexpr std::size_t clusters = 20;
  const Philox rng(1, "similarity");
  std::vector<float> similarity(rows * clusters);
  std::vector<float> weight(rows);
  for (std::size_t i = 0; i < similarity.size(); ++i) similarity[i] = rng.normal(i);
  for (std::size_t i = 0; i < rows; ++i) weight[i] = 1 + 9 * rng.uniform(similarity.size() + i);
  BalancedAssignment assignment(similarity, weight, clusters);
  const auto sum = [&] {
    double total = 0;
    for (std::size_t v = 0; v < rows; ++v) {
      total += static_cast<double>(weight[v] *
                                   similarity[v * clusters + static_cast<std::size_t>(assignment.cluster_of_row()[v])]);
    }
    return total;
  };
  assignment.assign_greedily();
  const double greedy = sum();
  double before = greedy;
  for (std::uint64_t sweep = 0; sweep < 5; ++sweep) {
    assignment.exchange(1, sweep);
    EXPECT_GE(sum(), before);
    before = sum();
  }
  EXPECT_GT(before, greedy);
  std::vector<int> sizes(clusters, 0);
  for (const std::int32_t k : assignment.cluster_of_row()) ++sizes[static_cast<std::size_t>(k)];
  EXPECT_THAT(sizes, testing::Each(rows / clusters));
}

TEST(MapFit, BalancedClustersOfMoreRowsThanAreMultipliedAtATime) {
  // 2^22 numbers are 62,601 rows of 59 + 8, so that rows and clusters fall out of step in the second part.
  constexpr std::int64_t rows = 70'000, dims = 59, clusters = 8;
  const Philox rng(1, "rows");
  WeightedVectors x{.rows = rows, .dims = dims, .values = {}, .weight = std::vector<float>(rows, 1.0f)};
  std::vector<std::int32_t> planted, start;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto cluster = static_cast<std::int32_t>(row % clusters);
    planted.push_back(cluster);
    start.push_back(row % 11 == 0 ? (cluster + 1) % static_cast<std::int32_t>(clusters) : cluster);
    for (std::int64_t i = 0; i < dims; ++i) {
      const float noise = rng.normal(static_cast<std::uint64_t>(row * dims + i));
      x.values.push_back((i == cluster ? 1.0f : 0.0f) + 0.05f * noise);
    }
  }
  EXPECT_EQ(balanced_clusters(x, clusters, 1, *make_cpu_backend(1), start), planted);
}

TEST(MapFit, ProductCodesFindPlantedSubCodes) {
  // Rows are sums of one of 8 far apart points in each of 3 groups of 4 dimensions, and a little noise.
  constexpr std::int64_t rows = 600;
  const Philox rng(2, "planted");
  WeightedVectors x{
      .rows = rows, .dims = 12, .values = std::vector<float>(rows * 12), .weight = std::vector<float>(rows, 1)};
  std::vector<std::uint64_t> planted(rows * 3);
  for (std::size_t i = 0; i < planted.size(); ++i) {
    planted[i] = rng.below(i, 8);
    for (std::size_t d = 0; d < 4; ++d) {
      const float point = 10 * rng.normal(1'000'000 + (i % 3) * 100 + planted[i] * 4 + d);
      x.values[i * 4 + d] = point + 0.01f * rng.normal(2'000'000 + i * 4 + d);
    }
  }
  // 16 centres for 8 points: even where the first draw misses a point, some pass reseeds or splits; what counts is that
  // rows with one code have one point.
  const std::vector<std::uint8_t> codes = product_codes(x, 3, 16, 1);
  int mixed = 0;
  for (std::size_t group = 0; group < 3; ++group) {
    std::map<std::uint8_t, std::uint64_t> point_of_code;
    for (std::size_t row = 0; row < rows; ++row) {
      const auto [at, inserted] = point_of_code.try_emplace(codes[row * 3 + group], planted[row * 3 + group]);
      mixed += at->second != planted[row * 3 + group] ? 1 : 0;
    }
  }
  EXPECT_LT(mixed, rows * 3 / 20);
}

}  // namespace
}  // namespace vqlm
