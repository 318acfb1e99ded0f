#include "core/rng.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace vqlm {
namespace {

using Block = std::array<std::uint32_t, 4>;

// Known answers of Random123 1.14, tests/kat_vectors, "philox4x32 10".
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // The digits of pi.
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, NumbersDependOnSeedStreamAndIndexOnly) {
  const Philox a(1, "model.norm.weight");
  EXPECT_EQ(a.bits(5), Philox(1, "model.norm.weight").bits(5));
  EXPECT_NE(a.bits(5), a.bits(6));
  EXPECT_NE(a.bits(5), Philox(2, "model.norm.weight").bits(5));
  EXPECT_NE(a.bits(5), Philox(1, "lm_head.weight").bits(5));
  EXPECT_NE(a.bits(5), a.bits(5 + (std::uint64_t{1} << 32))) << "the index' upper half counts";
}

// Means and variances over n samples lie within five standard errors (a failure by chance: 1 in 1.7 million;
// the numbers are fixed, so it either always or never happens).
TEST(Philox, MomentsOfUniformAndNormal) {
  const Philox rng(7, 0);
  const int n = 100'000;
  double uniform_sum = 0, normal_sum = 0, normal_squares = 0;
  for (int i = 0; i < n; ++i) {
    const double u = rng.uniform(static_cast<std::uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    uniform_sum += u;
    const double z = rng.normal(static_cast<std::uint64_t>(i));
    normal_sum += z;
    normal_squares += z * z;
  }
  EXPECT_NEAR(uniform_sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(normal_sum / n, 0.0, 5 * std::sqrt(1.0 / n));
  EXPECT_NEAR(normal_squares / n, 1.0, 5 * std::sqrt(2.0 / n));  // variance of z^2 is 2
}

TEST(Philox, BelowIsUniformOverItsRange) {
  const Philox rng(3, 9);
  const std::uint64_t bound = 10, n = 100'000;
  std::vector<int> counts(bound);
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t x = rng.below(i, bound);
    ASSERT_LT(x, bound);
    ++counts[x];
  }
  const double expected = static_cast<double>(n) / static_cast<double>(bound);
  for (int count : counts) EXPECT_NEAR(count, expected, 5 * std::sqrt(expected));
  EXPECT_EQ(rng.below(0, 1), 0u);
}

TEST(StreamOf, IsFnv1a) {
  // Published test values of the 64-bit FNV-1a hash.
  EXPECT_EQ(stream_of(""), 0xcbf29ce484222325u);
  EXPECT_EQ(stream_of("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(stream_of("foobar"), 0x85944171f73967e8u);
}

}  // namespace
}  // namespace vqlm
