// Kernels of every kind on the executor, against plain loops: in forward, reverse and several random orders. Inputs are
// small integers, so every sum is exact in any order.
#include "tests/simt/executor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "core/error.h"
#include "tests/simt/example_kernels.h"
#include "tests/simt/streams.h"

namespace vqlm::cuda {
namespace {

struct OrderCase {
  simt::Order order;
  std::uint64_t seed;
};

std::string name_of(const testing::TestParamInfo<OrderCase>& info) {
  const char* names[] = {"forward", "reverse", "random"};
  return names[static_cast<int>(info.param.order)] + std::to_string(info.param.seed);
}

class Executor : public testing::TestWithParam<OrderCase> {
 protected:
  Executor() {
    simt::set_order(GetParam().order, GetParam().seed);
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  ~Executor() override {
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    simt::set_order(simt::Order::forward);
  }
  void wait() { ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }

  cudaStream_t stream_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(, Executor,
                         testing::Values(OrderCase{simt::Order::forward, 0}, OrderCase{simt::Order::reverse, 0},
                                         OrderCase{simt::Order::random, 1}, OrderCase{simt::Order::random, 2},
                                         OrderCase{simt::Order::random, 3}),
                         name_of);

TEST_P(Executor, BlockSumsOfRows) {
  const int rows = 9, columns = 999;
  std::vector<float> x(rows * columns), sums(rows, -1.0f);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * i % 17) - 8;
  row_sums(stream_, sums.data(), x.data(), rows, columns);
  wait();
  for (int row = 0; row < rows; ++row) {
    const auto begin = x.begin() + row * columns;
    EXPECT_EQ(sums[static_cast<std::size_t>(row)], std::accumulate(begin, begin + columns, 0.0f)) << row;
  }
}

TEST_P(Executor, DynamicSharedMemoryBehindABarrier) {
  const int blocks = 7, threads = 75;  // the last warp is not full
  std::vector<int> in(blocks * threads), out(in.size());
  std::iota(in.begin(), in.end(), 0);
  reverse_blocks(stream_, out.data(), in.data(), blocks, threads);
  wait();
  for (int i = 0; i < blocks * threads; ++i) {
    const int block = i / threads, thread = i % threads;
    EXPECT_EQ(out[static_cast<std::size_t>(i)], block * threads + threads - 1 - thread);
  }
}

TEST_P(Executor, TensorCoreProductThroughAsyncCopies) {
  const int m = 48, n = 40, k = 80;
  std::vector<__nv_bfloat16> a(m * k), b(n * k);
  std::vector<float> c(m * n, -1.0f), x(m * k), y(n * k);
  for (std::size_t i = 0; i < x.size(); ++i) a[i] = __float2bfloat16(x[i] = static_cast<float>(i * 7 % 13) - 6);
  for (std::size_t i = 0; i < y.size(); ++i) b[i] = __float2bfloat16(y[i] = static_cast<float>(i * 5 % 11) - 5);
  tile_matmul(stream_, c.data(), a.data(), b.data(), m, n, k);
  wait();
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      const float* row = x.data() + i * k;
      EXPECT_EQ(c[static_cast<std::size_t>(i * n + j)], std::inner_product(row, row + k, y.data() + j * k, 0.0f));
    }
  }
}

TEST_P(Executor, MatricesLoadedAsDocumented) {
  // Element (row, column) of matrix q has the value 64 q + 8 row + column, all exact in bf16 (8 bits).
  std::vector<__nv_bfloat16> matrices(4 * 64);
  for (std::size_t i = 0; i < matrices.size(); ++i) matrices[i] = __float2bfloat16(static_cast<float>(i));
  std::vector<float> plain(32 * 8), transposed(32 * 8), two(32 * 4);
  load_matrices(stream_, plain.data(), transposed.data(), two.data(), matrices.data());
  wait();
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) {
      const int matrix = i / 2, next = i % 2;
      EXPECT_EQ(plain[static_cast<std::size_t>(lane * 8 + i)], 64 * matrix + 8 * g + 2 * t + next);
      EXPECT_EQ(transposed[static_cast<std::size_t>(lane * 8 + i)], 64 * matrix + 8 * (2 * t + next) + g);
      if (matrix < 2) {
        EXPECT_EQ(two[static_cast<std::size_t>(lane * 4 + i)], 64 * matrix + 8 * (2 * t + next) + g);
      }
    }
  }
}

TEST_P(Executor, ShufflesAndVotes) {
  std::vector<int> out(shuffle_results * 32);
  shuffles(stream_, out.data());
  wait();
  for (int lane = 0; lane < 32; ++lane) {
    const int* got = out.data() + lane * shuffle_results;
    const int value = 100 + lane;
    EXPECT_EQ(got[0], 100 + (lane ^ 5));
    EXPECT_EQ(got[1], lane >= 3 ? value - 3 : value);
    EXPECT_EQ(got[2], lane + 3 < 32 ? value + 3 : value);
    EXPECT_EQ(got[3], 100 + 7);
    EXPECT_EQ(got[4], 100 + lane / 8 * 8 + 2);                // index 2 of each 8
    EXPECT_EQ(got[5], lane % 8 + 1 < 8 ? value + 1 : value);  // down by 1 within 8
    EXPECT_EQ(got[6], static_cast<int>(0xaaaaaaaau));         // odd lanes
    EXPECT_EQ(got[7], 1);                                     // any lane is 31
    EXPECT_EQ(got[8], 0);                                     // not all are
    EXPECT_EQ(got[9], lane < 16 ? 100 + (15 - lane) : -1);    // half a warp on its own
    EXPECT_EQ(got[10], 1'000'000'007 % 1000 + (lane ^ 1));    // 64 bits
  }
}

TEST_P(Executor, AtomicsAndKernelsWithoutSwitches) {
  const std::int64_t n = 10'000;
  std::vector<int> ids(n), counts(10);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int>(i % 10);
  const std::uint64_t before = simt::switches();
  histogram(stream_, counts.data(), ids.data(), n);
  wait();
  EXPECT_EQ(counts, std::vector<int>(10, 1000));
  // Threads that never wait run one after the other on one fiber: in and out of it once a block. ThreadSanitizer's
  // build gives each its own.
  if (!simt::one_fiber_per_thread()) {
    EXPECT_EQ(simt::switches() - before, 2u * 40);
  }
}

TEST(Launch, RefusesShapesThatNoGpuRuns) {
  int value = 0;
  EXPECT_THROW(reverse_blocks(nullptr, &value, &value, 1, 1025), Error);
  EXPECT_THROW(reverse_blocks(nullptr, &value, &value, 0, 32), Error);
  try {
    reverse_blocks(nullptr, &value, &value, 1, 32);
    FAIL() << "the default stream is refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("example_kernels.cu:"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("block 32x1x1"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace vqlm::cuda
