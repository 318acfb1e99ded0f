// Sums of numbers whose rounding depends on the order: the same bits on every rank, in every run, for every chunking,
// and whether they come from an all-reduce or a reduce-scatter.
#include <gtest/gtest.h>

#include <vector>

#include "core/rng.h"
#include "tests/ranks.h"

namespace vqlm {
namespace {

using testing::session;

constexpr MpiChunking small_chunks{.elements_per_call = 1000, .scratch_bytes = 30000};

/// Normal numbers over 2^-20..2^20, so that nearly every addition rounds.
template <class T>
std::vector<T> rough_numbers(int rank, std::int64_t n) {
  const Philox rng(17, static_cast<std::uint64_t>(rank));
  std::vector<T> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<T>(std::ldexp(rng.normal(2 * i), static_cast<int>(rng.below(2 * i + 1, 41)) - 20));
  }
  return x;
}

template <class T>
class Determinism : public ::testing::Test {};
using FloatTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Determinism, FloatTypes);

TYPED_TEST(Determinism, SumsAreInRankOrder) {
  using T = TypeParam;
  const int ranks = session().size();
  for (const MpiChunking& chunking : {MpiChunking{}, small_chunks}) {
    const auto world = session().split(0, session().rank(), "world", chunking);
    for (const std::int64_t per_rank : {1, 40, 10'011}) {
      const std::int64_t n = per_rank * ranks;
      std::vector<T> expected = rough_numbers<T>(0, n);
      for (int rank = 1; rank < ranks; ++rank) {
        const auto x = rough_numbers<T>(rank, n);
        for (std::size_t i = 0; i < x.size(); ++i) expected[i] += x[i];
      }
      for (int run = 0; run < 2; ++run) {
        auto x = rough_numbers<T>(session().rank(), n);
        const Tensor whole(x.data(), dtype_of<T>(), {n});
        std::vector<T> piece(static_cast<std::size_t>(per_rank));
        world->reduce_scatter(Tensor(piece.data(), dtype_of<T>(), {per_rank}), whole, Reduce::sum, Stream{});
        world->all_reduce(whole, Reduce::sum, Stream{});
        // Equal values are equal bits here: no NaN, and zeros of both signs cannot come out of these numbers.
        EXPECT_TRUE(x == expected) << "all_reduce of " << n << ", run " << run;
        EXPECT_TRUE(std::equal(piece.begin(), piece.end(), x.begin() + per_rank * session().rank()))
            << "reduce_scatter of " << n << ", run " << run;
      }
    }
  }
}

}  // namespace
}  // namespace vqlm
