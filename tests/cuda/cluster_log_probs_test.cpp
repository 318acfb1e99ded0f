// Log-probabilities inside chosen clusters on the device, against the CPU's on the same numbers.
#include <gtest/gtest.h>

#include "tests/cuda/member_map.h"

namespace vqlm::testing {
namespace {

class CudaClusterLogProbsTest : public CudaOpTest, public ::testing::WithParamInterface<MemberCase> {};

TEST_P(CudaClusterLogProbsTest, EqualsHost) {
  const MemberCase c = GetParam();
  MemberMap map(c);
  HostF32 h = random_bf16({c.rows, c.d()}, "h"), codebook = random_bf16(c.codebook_shape(), "u", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias");
  const auto absent_without_groups = [&](Tensor x) { return c.groups > 0 ? x : Tensor{}; };
  // Every row with every cluster.
  const std::int64_t entries = c.rows * c.clusters();
  HostI32 rows({entries}), clusters({entries});
  for (std::int64_t i = 0; i < entries; ++i) {
    rows[i] = static_cast<std::int32_t>(i / c.clusters());
    clusters[i] = static_cast<std::int32_t>(i % c.clusters());
  }
  HostF32 expected({entries, map.largest_cluster});
  oracle->run(ClusterLogProbs{.out = expected,
                              .h = h,
                              .rows = rows,
                              .clusters = clusters,
                              .member_codebook = absent_without_groups(codebook),
                              .token_bias = bias,
                              .map = map.view()});

  const DeviceMemberMap device_map(*device, map);
  const DeviceArray out = output(expected.shape(), DType::f32), device_h = bf16(h), u = bf16(codebook),
                    b = upload(bias), device_rows = upload(rows), device_clusters = upload(clusters);
  device->run(ClusterLogProbs{.out = out,
                              .h = device_h,
                              .rows = device_rows,
                              .clusters = device_clusters,
                              .member_codebook = absent_without_groups(u),
                              .token_bias = b,
                              .map = device_map.view()});

  // A score is a sum of d products, each below max |h| max |u|, and a bias, on both sides, and comes in twice (itself and
  // in lse); the sum over members adds exponentials off by a few units.
  const double terms =
      c.groups == 0 ? 0 : static_cast<double>(c.d()) * max_abs(h.doubles()) * max_abs(codebook.doubles());
  const double magnitude = terms + max_abs(bias.doubles());
  const double bound =
      u32 * (4 * static_cast<double>(c.d() + 4) * magnitude + 2 * static_cast<double>(map.largest_cluster) + 300);
  const HostF32 found = out.download();
  for (std::int64_t i = 0; i < found.size(); ++i) {
    if (std::isinf(expected[i])) {
      ASSERT_EQ(found[i], expected[i]) << "element " << i;
    } else {
      ASSERT_NEAR(found[i], expected[i], bound) << "element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Maps, CudaClusterLogProbsTest,
                         ::testing::Values(MemberCase{"PrimeVocabulary", 7, 4, 5, 16, {20, 31, 1, 45, 30}},
                                           MemberCase{"Width12", 3, 3, 40, 12, {40, 60}},
                                           MemberCase{"MoreMembersThanThreads", 2, 3, 100, 8, {300, 2}},
                                           MemberCase{"WideRows", 2, 60, 16, 24, {9, 4}},
                                           MemberCase{"NoGroups", 5, 0, 0, 16, {13, 1, 28, 5}},
                                           MemberCase{"NoRows", 0, 2, 4, 8, {3, 2}},
                                           with_own_vectors("OwnVectors", 7, 64, {20, 31, 1, 45, 30}),
                                           with_own_vectors("OwnVectorsOddWidth", 3, 67, {11, 300}),
                                           // With its static shared memory just above what a launch gets unasked.
                                           with_own_vectors("OwnVectorsOfWidth12240", 2, 12240, {3, 2})),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm::testing
