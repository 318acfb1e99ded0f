// Rows sorted by cluster, and the commitment loss.
#include <gtest/gtest.h>

#include "tests/core/op_testing.h"

namespace vqlm::testing {
namespace {

TEST_F(OpTest, SortRowsByClusterIsAStableCountingSort) {
  HostI32 cluster_of_token({6});
  const std::int32_t clusters_of[] = {2, 0, 2, 3, 0, 2};  // cluster 1 has no rows here
  for (std::int64_t v = 0; v < 6; ++v) cluster_of_token[v] = clusters_of[v];
  HostI32 targets({8});
  const std::int32_t tokens[] = {5, -1, 1, 0, 4, -1, 3, 1};
  for (std::int64_t n = 0; n < 8; ++n) targets[n] = tokens[n];
  CodeMapView map;
  map.cluster_of_token = cluster_of_token;

  HostI32 clusters = poisoned<std::int32_t>({8}), order = poisoned<std::int32_t>({8});
  HostI32 row_begin = poisoned<std::int32_t>({5});
  backend->run(
      SortRowsByCluster{.clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map});
  const std::vector<std::int32_t> expected_clusters{2, -1, 0, 2, 0, -1, 3, 0}, expected_begin{0, 3, 3, 5, 6};
  const std::vector<std::int32_t> expected_order{2, 4, 7, 0, 3, 6, 1, 5};
  for (std::int64_t n = 0; n < 8; ++n) {
    EXPECT_EQ(clusters[n], expected_clusters[static_cast<std::size_t>(n)]) << n;
    EXPECT_EQ(order[n], expected_order[static_cast<std::size_t>(n)]) << n;
  }
  for (std::int64_t k = 0; k < 5; ++k) EXPECT_EQ(row_begin[k], expected_begin[static_cast<std::size_t>(k)]) << k;
}

TEST_F(OpTest, SortOfRowsWithoutTargets) {
  HostI32 cluster_of_token({2}), targets({3}, -1);
  CodeMapView map;
  map.cluster_of_token = cluster_of_token;
  HostI32 clusters = poisoned<std::int32_t>({3}), order = poisoned<std::int32_t>({3});
  HostI32 row_begin = poisoned<std::int32_t>({2});
  backend->run(
      SortRowsByCluster{.clusters = clusters, .order = order, .row_begin = row_begin, .targets = targets, .map = map});
  EXPECT_EQ(row_begin[1], 0);
  for (std::int64_t n = 0; n < 3; ++n) {
    EXPECT_EQ(clusters[n], -1);
    EXPECT_EQ(order[n], n);
  }
}

class CommitmentTest : public OpTest, public ::testing::WithParamInterface<std::int64_t> {};

TEST_P(CommitmentTest, EqualsReference) {
  const std::int64_t rows = 37, width = GetParam(), codes = 5;
  const float beta = 0.25f, scale = 0.125f;
  HostF32 h = random_normal({rows, width}, "h"), codebook = random_normal({codes, width}, "codebook");
  HostF32 dh = random_normal({rows, width}, "dh"), penalty = poisoned({rows});
  HostI32 clusters = random_integers<std::int32_t>({rows}, "clusters", -1, codes - 1);
  std::vector<double> expected_penalty, bound_penalty, expected_dh = dh.doubles(), bound_dh;
  for (std::int64_t n = 0; n < rows; ++n) {
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      const double difference =
          clusters[n] < 0 ? 0 : double{h[n * width + i]} - double{codebook[clusters[n] * width + i]};
      sum += difference * difference;
      double& gradient = expected_dh[static_cast<std::size_t>(n * width + i)];
      const double term = scale * 2 * beta / static_cast<double>(width) * difference;
      gradient += term;
      bound_dh.push_back(u32 * (8 * std::abs(term) + std::abs(gradient)));
    }
    expected_penalty.push_back(beta / static_cast<double>(width) * sum);
    bound_penalty.push_back(u32 * static_cast<double>(width + 8) * expected_penalty.back());
  }
  backend->run(
      Commitment{.penalty = penalty, .h = h, .codebook = codebook, .clusters = clusters, .beta = beta, .scale = scale});
  expect_close(penalty, expected_penalty, bound_penalty, "penalty without gradient");
  penalty.fill(-1);
  backend->run(Commitment{
      .penalty = penalty, .dh = dh, .h = h, .codebook = codebook, .clusters = clusters, .beta = beta, .scale = scale});
  expect_close(penalty, expected_penalty, bound_penalty, "penalty");
  expect_close(dh, expected_dh, bound_dh, "dh");
}

INSTANTIATE_TEST_SUITE_P(Widths, CommitmentTest, ::testing::Values(1, 7, 64, 130));

TEST_P(CommitmentTest, CodesFromAveragesDivideByTheCounts) {
  const std::int64_t codes = 6, width = GetParam();
  const float scale = 0.75f;
  HostF32 sums = random_normal({codes, width}, "sums"), counts({codes}), codebook({codes, width}, 3.5f);
  const float of_code[] = {1.0f, 0.0f, 300.0f, 1e-30f, 0.9e-30f, 0.3f};
  for (std::int64_t k = 0; k < codes; ++k) counts[k] = of_code[k];
  std::vector<double> expected, bound;
  for (std::int64_t i = 0; i < sums.size(); ++i) {
    const double count = of_code[i / width];
    const bool stays = of_code[i / width] < 1e-30f;
    expected.push_back(stays ? 3.5 : scale * double{sums[i]} / count);
    bound.push_back(stays ? 0 : 3 * u32 * std::abs(expected.back()));  // quotient, product and a spare
  }
  backend->run(CodesFromAverages{.codebook = codebook, .sums = sums, .counts = counts, .scale = scale});
  expect_close(codebook, expected, bound, "codebook");
}

}  // namespace
}  // namespace vqlm::testing
