// Log-probabilities of all tokens on the device, against the CPU's on the same numbers.
#include <gtest/gtest.h>

#include "tests/cuda/member_map.h"

namespace vqlm::testing {
namespace {

class CudaMemberLogProbsTest : public CudaOpTest, public ::testing::WithParamInterface<MemberCase> {};

TEST_P(CudaMemberLogProbsTest, EqualsHost) {
  const MemberCase c = GetParam();
  MemberMap map(c);
  HostF32 h = random_bf16({c.rows, c.d()}, "h"), codebook = random_bf16(c.codebook_shape(), "u", 0.5f);
  HostF32 bias = random_normal({c.vocabulary()}, "bias"), codes = random_normal({c.rows, c.clusters()}, "codes");
  oracle->run(LogSoftmax{.logits = codes});
  const auto absent_without_groups = [&](Tensor x) { return c.groups > 0 ? x : Tensor{}; };
  HostF32 expected({c.rows, c.vocabulary()});
  oracle->run(MemberLogProbs{.log_probs = expected,
                             .h = h,
                             .code_log_probs = codes,
                             .member_codebook = absent_without_groups(codebook),
                             .token_bias = bias,
                             .map = map.view()});

  const DeviceMemberMap device_map(*device, map);
  const DeviceArray out = output({c.rows, c.vocabulary()}, DType::f32), rows = bf16(h), u = bf16(codebook),
                    b = upload(bias), k = upload(codes);
  device->run(MemberLogProbs{.log_probs = out,
                             .h = rows,
                             .code_log_probs = k,
                             .member_codebook = absent_without_groups(u),
                             .token_bias = b,
                             .map = device_map.view()});

  // A score is a sum of d products, each below max |h| max |u|, and a bias, on both sides, and comes in twice (itself and
  // in lse); the sum over members adds exponentials off by a few units.
  const double terms =
      c.groups == 0 ? 0 : static_cast<double>(c.d()) * max_abs(h.doubles()) * max_abs(codebook.doubles());
  const double magnitude = terms + max_abs(bias.doubles()) + max_abs(codes.doubles());
  const double bound =
      u32 * (4 * static_cast<double>(c.d() + 4) * magnitude + 2 * static_cast<double>(c.vocabulary()) + 300);
  const HostF32 found = out.download();
  expect_close(found, expected.doubles(), bound, "log_probs");
  for (std::int64_t n = 0; n < c.rows; ++n) {
    double total = 0;
    for (std::int64_t v = 0; v < c.vocabulary(); ++v) total += std::exp(double{found[n * c.vocabulary() + v]});
    ASSERT_NEAR(total, 1, 2 * bound) << "row " << n;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Maps, CudaMemberLogProbsTest,
    ::testing::Values(MemberCase{"PrimeVocabulary", 13, 4, 5, 16, {20, 31, 1, 45, 30}},
                      MemberCase{"SingleMembers", 5, 2, 3, 8, {1, 1, 1, 1}}, MemberCase{"OneRow", 1, 2, 16, 4, {30, 7}},
                      MemberCase{"MoreRowsThanBlocks", 70, 3, 4, 1, {9, 2}},
                      MemberCase{"Width12", 9, 3, 40, 12, {40, 60}},
                      MemberCase{"TablesOfSingleRows", 11, 60, 256, 1, {150, 20}},  // 240 KB for 4 rows, 60 KB for 1
                      MemberCase{"TablesInMemory", 3, 240, 256, 1, {60, 20}},       // 240 KB for 1
                      MemberCase{"NoGroups", 9, 0, 0, 16, {13, 1, 28, 5}},
                      with_own_vectors("OwnVectors", 13, 64, {20, 31, 1, 45, 30}),
                      with_own_vectors("OwnVectorsOneRow", 1, 8, {30, 7}),
                      with_own_vectors("OwnVectorsMoreRowsThanBlocks", 90, 16, {9, 2}),
                      with_own_vectors("OwnVectorsMoreClustersThanWarps", 3, 8, std::vector<std::int64_t>(40, 3))),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm::testing
