#include "dist/rank_order_reduce.h"

#include <gtest/gtest.h>

namespace vqlm {
namespace {

// 2^24 + 1 rounds to 2^24 in f32, so the order of three terms shows in the sum.
TEST(RankOrderReduce, AddsFromTheFirstBlockOn) {
  const float big = 0x1p24f;
  std::vector<float> a(3000, 1.0f), b(3000, big), c(3000, -big), out(3000);
  reduce_in_rank_order(out.data(), {a.data(), b.data(), c.data()}, 3000, DType::f32, Reduce::sum);
  EXPECT_EQ(out, std::vector<float>(3000, 0.0f));
  reduce_in_rank_order(out.data(), {b.data(), c.data(), a.data()}, 3000, DType::f32, Reduce::sum);
  EXPECT_EQ(out, std::vector<float>(3000, 1.0f));
}

TEST(RankOrderReduce, OutMayBeAnyBlock) {
  for (std::size_t alias = 0; alias < 3; ++alias) {
    std::vector<std::vector<std::int32_t>> blocks(3, std::vector<std::int32_t>(2500));
    for (std::size_t p = 0; p < 3; ++p) {
      for (std::size_t i = 0; i < 2500; ++i) blocks[p][i] = static_cast<std::int32_t>((p + 1) * i);
    }
    reduce_in_rank_order(blocks[alias].data(), {blocks[0].data(), blocks[1].data(), blocks[2].data()}, 2500, DType::i32,
                         Reduce::sum);
    for (std::size_t i = 0; i < 2500; ++i) EXPECT_EQ(blocks[alias][i], static_cast<std::int32_t>(6 * i));
  }
}

TEST(RankOrderReduce, OneBlockIsACopyAndNoElementsAreNone) {
  const std::vector<double> a{1.5, -2.0};
  std::vector<double> out(2, 7.0);
  reduce_in_rank_order(out.data(), {a.data()}, 0, DType::f64, Reduce::max);
  EXPECT_EQ(out, (std::vector<double>{7.0, 7.0}));
  reduce_in_rank_order(out.data(), {a.data()}, 2, DType::f64, Reduce::max);
  EXPECT_EQ(out, a);
}

}  // namespace
}  // namespace vqlm
