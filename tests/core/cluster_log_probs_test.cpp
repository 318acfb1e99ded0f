// Log-probabilities inside chosen clusters, against a double-precision reference and against member_log_probs.
#include <gtest/gtest.h>

#include "tests/core/member_map.h"

namespace vqlm::testing {
namespace {

class ClusterLogProbsTest : public OpTest, public ::testing::WithParamInterface<MemberCase> {
 protected:
  ClusterLogProbsTest() {
    // Row 0 asks for all clusters, then for its first again later on; row 1 for none, each other row for one.
    for (std::int64_t k = 0; k < c.clusters(); ++k) ask(0, k);
    for (std::int64_t n = c.rows; n-- > 2;) ask(n, n % c.clusters());
    ask(0, 0);
  }

  void ask(std::int64_t row, std::int64_t cluster) {
    row_of.push_back(static_cast<std::int32_t>(row));
    cluster_of.push_back(static_cast<std::int32_t>(cluster));
  }
  static Tensor ids(std::vector<std::int32_t>& x) {
    return Tensor(x.data(), DType::i32, {static_cast<std::int64_t>(x.size())});
  }
  Tensor codebook_or_absent() { return c.groups > 0 ? codebook.tensor() : Tensor{}; }
  double score(std::int64_t n, std::int64_t position, double& terms) const;

  MemberCase c = GetParam();
  MemberMap map{c};
  HostF32 h = random_normal({c.rows, c.d()}, "h");
  HostF32 codebook = random_normal(c.codebook_shape(), "codebook", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias");
  std::vector<std::int32_t> row_of, cluster_of;
};

/// s of the member at `position` of member order for row n; `terms`: the sum of what its terms weigh.
double ClusterLogProbsTest::score(std::int64_t n, std::int64_t position, double& terms) const {
  double sum = bias[map.members[position]];
  terms = std::abs(sum);
  for (int g = 0; g < c.groups; ++g) {
    const std::int64_t code = g * c.codes + map.code(position, g);
    for (int i = 0; i < c.width; ++i) {
      const double term = double{h[n * c.d() + g * c.width + i]} * codebook[code * c.width + i];
      sum += term;
      terms += std::abs(term);
    }
  }
  return sum;
}

TEST_P(ClusterLogProbsTest, EqualsReference) {
  const auto entries = static_cast<std::int64_t>(row_of.size()), largest = map.largest_cluster;
  HostF32 out = poisoned({entries, largest});
  backend->run(ClusterLogProbs{.out = out,
                               .h = h,
                               .rows = ids(row_of),
                               .clusters = ids(cluster_of),
                               .member_codebook = codebook_or_absent(),
                               .token_bias = bias,
                               .map = map.view()});
  // All log-probabilities with clusters that weigh nothing: the same numbers at the tokens' places.
  HostF32 no_codes({c.rows, c.clusters()}), everything({c.rows, c.vocabulary()});
  backend->run(MemberLogProbs{.log_probs = everything,
                              .h = h,
                              .code_log_probs = no_codes,
                              .member_codebook = codebook_or_absent(),
                              .token_bias = bias,
                              .map = map.view()});
  for (std::int64_t i = 0; i < entries; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const std::int32_t first = map.member_begin[cluster_of[at]];
    const std::int32_t size = map.member_begin[cluster_of[at] + 1] - first;
    std::vector<double> s;
    double terms = 0, lse = 0;
    for (std::int32_t w = 0; w < size; ++w) {
      double of_score = 0;
      s.push_back(score(row_of[at], first + w, of_score));
      terms = std::max(terms, of_score);
    }
    for (const double x : s) lse += std::exp(x);
    lse = std::log(lse);
    // d + 3 roundings in a score, twice (itself and in lse); 256 + s / 1024 in the sum of exponentials, a few in exp, log
    // and the difference.
    const double bound =
        u32 * (2 * static_cast<double>(c.d() + 3) * terms + 256 + size / 1024.0 + 8 + 2 * std::abs(lse));
    for (std::int64_t w = 0; w < largest; ++w) {
      const float found = out[i * largest + w];
      if (w >= size) {
        ASSERT_EQ(found, -std::numeric_limits<float>::infinity()) << "entry " << i << ", place " << w;
        continue;
      }
      ASSERT_NEAR(found, s[static_cast<std::size_t>(w)] - lse, bound) << "entry " << i << ", member " << w;
      ASSERT_NEAR(found, everything[row_of[at] * c.vocabulary() + map.members[first + w]], 2 * bound);
    }
  }
}

// Scores by tables (many members, few codes), by vectors (the reverse), and widths with vectors of every length.
INSTANTIATE_TEST_SUITE_P(Maps, ClusterLogProbsTest,
                         ::testing::Values(MemberCase{"Tables", 13, 4, 5, 16, {20, 31, 1, 45, 30}},
                                           MemberCase{"Vectors", 13, 4, 250, 16, {20, 31, 1, 45, 30}},
                                           MemberCase{"SingleMembers", 5, 2, 3, 8, {1, 1, 1, 1}},
                                           MemberCase{"Width12", 9, 3, 40, 12, {40, 60}},
                                           MemberCase{"OddWidth", 9, 3, 90, 5, {11, 12}},
                                           MemberCase{"OneRow", 1, 1, 256, 64, {40, 63}},
                                           MemberCase{"OneRowOddGroups", 1, 19, 200, 4, {30, 7}},
                                           MemberCase{"OddGroups", 21, 19, 7, 4, {70, 1, 66, 30}},
                                           MemberCase{"LargeCluster", 4, 2, 256, 8, {1030, 2}},
                                           MemberCase{"NoGroups", 9, 0, 0, 16, {13, 1, 28, 5}},
                                           with_own_vectors("OwnVectors", 13, 48, {20, 31, 1, 45, 30}),
                                           with_own_vectors("OwnVectorsOddWidth", 3, 67, {11, 12, 1}),
                                           with_own_vectors("OwnVectorsOneRow", 1, 5, {3, 2})),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_F(OpTest, ClusterLogProbsOfNothing) {
  MemberMap map({"", 1, 2, 4, 8, {6, 5}});
  HostF32 h = random_normal({1, 16}, "h"), codebook = random_normal({2, 4, 8}, "codebook"), bias({11});
  HostF32 out({0, 6});
  HostI32 none({0});
  backend->run(ClusterLogProbs{.out = out,
                               .h = h,
                               .rows = none,
                               .clusters = none,
                               .member_codebook = codebook,
                               .token_bias = bias,
                               .map = map.view()});
}

}  // namespace
}  // namespace vqlm::testing
