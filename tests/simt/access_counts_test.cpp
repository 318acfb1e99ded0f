// The counters against numbers worked out by hand: the rules alone, then planted kernels through the compiler's callbacks, bad
// ones beside good ones.
#include "tests/simt/access_counts.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>

#include "tests/simt/access_kernels.h"
#include "tests/simt/executor.h"
#include "tests/simt/streams.h"

namespace simt {

void PrintTo(const Cost& cost, std::ostream* out) {
  *out << cost.actual << " against " << cost.ideal;
}
bool operator==(const Cost& a, const Cost& b) {
  return a.actual == b.actual && a.ideal == b.ideal;
}

namespace {

/// Addresses by lane, from a function of the lane.
std::array<std::uintptr_t, 32> addresses(const std::function<std::uintptr_t(std::uintptr_t)>& of_lane) {
  std::array<std::uintptr_t, 32> result;
  for (std::uintptr_t lane = 0; lane < 32; ++lane) result[lane] = 4096 + of_lane(lane);
  return result;
}

TEST(AccessRules, Sectors) {
  const auto cost = [](int bytes, const auto& of_lane, std::uint32_t lanes = 0xffffffffu) {
    return sectors({addresses(of_lane), lanes, bytes, Access::load});
  };
  EXPECT_EQ(cost(4, [](auto l) { return 4 * l; }), (Cost{4, 4}));
  EXPECT_EQ(cost(4, [](auto l) { return 4 * (31 - l); }), (Cost{4, 4}));
  EXPECT_EQ(cost(4, [](auto l) { return 4 * l + 4; }), (Cost{5, 4}));
  EXPECT_EQ(cost(16, [](auto l) { return 16 * l + 16; }), (Cost{17, 16}));
  EXPECT_EQ(cost(4, [](auto l) { return 128 * l; }), (Cost{32, 4}));
  EXPECT_EQ(cost(4, [](auto) { return 0; }), (Cost{1, 1}));
  EXPECT_EQ(cost(2, [](auto l) { return 2 * l; }), (Cost{2, 2}));
  EXPECT_EQ(cost(4, [](auto l) { return 4 * l; }, 0x55555555u), (Cost{4, 2}));
  EXPECT_EQ(cost(4, [](auto l) { return 4 * l; }, 1), (Cost{1, 1}));
}

TEST(AccessRules, Wavefronts) {
  const auto cost = [](int bytes, const auto& of_lane, Access access = Access::load) {
    return wavefronts({addresses(of_lane), 0xffffffffu, bytes, access});
  };
  EXPECT_EQ(cost(4, [](auto l) { return 4 * l; }), (Cost{1, 1}));
  EXPECT_EQ(cost(4, [](auto l) { return 8 * l; }), (Cost{2, 1}));
  EXPECT_EQ(cost(4, [](auto l) { return 128 * l; }), (Cost{32, 1}));
  EXPECT_EQ(cost(4, [](auto l) { return 132 * l; }), (Cost{1, 1}));
  EXPECT_EQ(cost(2, [](auto l) { return 2 * l; }), (Cost{1, 1}));    // pairs share a word
  EXPECT_EQ(cost(2, [](auto l) { return 64 * l; }), (Cost{16, 1}));  // 16 lanes in each of two banks
  EXPECT_EQ(cost(8, [](auto l) { return 8 * l; }), (Cost{2, 2}));
  EXPECT_EQ(cost(8, [](auto l) { return 16 * l; }), (Cost{4, 2}));
  EXPECT_EQ(cost(16, [](auto l) { return 16 * l; }), (Cost{4, 4}));
  EXPECT_EQ(cost(16, [](auto l) { return 32 * l; }), (Cost{8, 4}));
  EXPECT_EQ(cost(16, [](auto) { return 0; }), (Cost{4, 4}));
  EXPECT_EQ(cost(4, [](auto) { return 0; }, Access::atomic), (Cost{32, 1}));
}

/// Planted kernels; each accesses what is asked for at one place, or a total says what all places cost together.
class AccessCounts : public testing::Test {
 protected:
  AccessCounts() {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    for (float** array : {&in_, &out_}) EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(array), 1 << 16), cudaSuccess);
    take_access_counts();
  }
  ~AccessCounts() override {
    cudaFree(in_);
    cudaFree(out_);
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
    set_order(Order::forward);
  }

  void finish() {
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    counts_ = take_access_counts();
  }
  Cost cost(Space space, Access access) const {
    Cost sum;
    for (const AccessCount& count : counts_) {
      if (count.space != space || count.access != access) continue;
      sum.actual += count.cost.actual;
      sum.ideal += count.cost.ideal;
    }
    return sum;
  }

  cudaStream_t stream_ = nullptr;
  float* in_ = nullptr;
  float* out_ = nullptr;
  std::vector<AccessCount> counts_;
};

TEST_F(AccessCounts, BankConflicts) {
  struct Case {
    int width, store_stride, load_stride;
    Cost stores, loads;
  };
  for (const Case& c : {Case{1, 1, 32, {1, 1}, {32, 1}}, Case{1, 2, 1, {2, 1}, {1, 1}}, Case{1, 33, 0, {1, 1}, {1, 1}},
                        Case{2, 1, 2, {2, 2}, {4, 2}}, Case{4, 1, 0, {4, 4}, {4, 4}}, Case{4, 8, 9, {32, 4}, {4, 4}}}) {
    for (const auto kind : {vqlm::cuda::SharedKind::of_kernel, vqlm::cuda::SharedKind::dynamic}) {
      SCOPED_TRACE(std::to_string(c.width) + " floats, strides " + std::to_string(c.store_stride) + ", " +
                   std::to_string(c.load_stride));
      vqlm::cuda::through_shared(stream_, out_, c.width, c.store_stride, c.load_stride, kind);
      finish();
      EXPECT_EQ(cost(Space::shared, Access::store), c.stores);
      EXPECT_EQ(cost(Space::shared, Access::load), c.loads);
      const auto sectors = static_cast<std::uint64_t>(4 * c.width);
      EXPECT_EQ(cost(Space::global, Access::store), (Cost{sectors, sectors}));
      EXPECT_EQ(cost(Space::global, Access::load), Cost{});
    }
  }
}

TEST_F(AccessCounts, StridedAndMisalignedCopies) {
  struct Case {
    int width, stride, offset;
    Cost loads;
  };
  for (const Case& c :
       {Case{1, 1, 0, {4, 4}}, Case{1, 32, 0, {32, 4}}, Case{1, 1, 1, {5, 4}}, Case{1, 0, 3, {1, 1}},
        Case{2, 2, 2, {9, 8}}, Case{4, 4, 0, {16, 16}}, Case{4, 4, 4, {17, 16}},
        // 32 bytes a lane: two instructions that touch every sector each, 33 where they begin inside one.
        Case{8, 8, 0, {64, 32}}, Case{8, 8, 4, {64, 32}}}) {
    SCOPED_TRACE(std::to_string(c.width) + " floats, stride " + std::to_string(c.stride) + ", " +
                 std::to_string(c.offset) + " in front");
    vqlm::cuda::copy_strided(stream_, out_, in_ + c.offset, c.width, c.stride);
    finish();
    EXPECT_EQ(cost(Space::global, Access::load), c.loads);
    const auto ideal = static_cast<std::uint64_t>(4 * c.width);
    EXPECT_EQ(cost(Space::global, Access::store), (Cost{c.width == 8 ? 2 * ideal : ideal, ideal}));
    EXPECT_EQ(cost(Space::shared, Access::load), Cost{});
  }
}

TEST_F(AccessCounts, LanesThatTakeNoPart) {
  for (const Order order : {Order::forward, Order::reverse, Order::random}) {
    set_order(order, 5);
    vqlm::cuda::copy_in_loop(stream_, out_, in_, 80, 1);  // 32, 32 and 16 lanes
    finish();
    EXPECT_EQ(cost(Space::global, Access::load), (Cost{10, 10}));
    vqlm::cuda::copy_in_loop(stream_, out_, in_, 80, 4);  // a float of each half sector
    finish();
    EXPECT_EQ(cost(Space::global, Access::load), (Cost{10, 3}));
    // What a warp does before it meets is not put together with what it does after.
    vqlm::cuda::store_in_turns(stream_, out_, 2, true);
    finish();
    EXPECT_EQ(cost(Space::global, Access::store), (Cost{8, 6}));
  }
}

TEST_F(AccessCounts, LanesThatDoNotMeetArePutTogetherByNumber) {
  vqlm::cuda::store_in_turns(stream_, out_, 2, false);
  finish();
  EXPECT_EQ(cost(Space::global, Access::store), (Cost{12, 6}));  // a GPU: 8 against 6
}

TEST_F(AccessCounts, AsynchronousCopiesAndMatrices) {
  vqlm::cuda::copy_by_cp_async(stream_, out_, in_, 1, 32);
  finish();
  EXPECT_EQ(cost(Space::global, Access::load), (Cost{16, 16}));
  EXPECT_EQ(cost(Space::shared, Access::store), (Cost{4, 4}));
  vqlm::cuda::copy_by_cp_async(stream_, out_, in_, 8,
                               8);  // all in the same banks; 8 lanes read, the others write zeros
  finish();
  EXPECT_EQ(cost(Space::global, Access::load), (Cost{4, 4}));
  EXPECT_EQ(cost(Space::shared, Access::store), (Cost{32, 4}));

  for (const int matrices : {2, 4}) {
    const auto ideal = static_cast<std::uint64_t>(matrices);
    vqlm::cuda::load_matrix_rows(stream_, out_, 48, matrices);
    finish();
    EXPECT_EQ(cost(Space::shared, Access::load), (Cost{ideal, ideal}));
    vqlm::cuda::load_matrix_rows(stream_, out_, 64, matrices);  // rows 0, 2, 4 and 6 in the same banks
    finish();
    EXPECT_EQ(cost(Space::shared, Access::load), (Cost{4 * ideal, ideal}));
  }
}

TEST_F(AccessCounts, AtomicFunctions) {
  const auto count = [&](int stride) {
    vqlm::cuda::add_atomically(stream_, reinterpret_cast<int*>(out_), stride);
    finish();
  };
  count(1);
  EXPECT_EQ(cost(Space::shared, Access::atomic), (Cost{1, 1}));
  EXPECT_EQ(cost(Space::global, Access::atomic), (Cost{4, 4}));
  count(0);
  EXPECT_EQ(cost(Space::shared, Access::atomic), (Cost{32, 1}));
  EXPECT_EQ(cost(Space::global, Access::atomic), (Cost{1, 1}));
  count(32);
  EXPECT_EQ(cost(Space::shared, Access::atomic), (Cost{32, 1}));
  EXPECT_EQ(cost(Space::global, Access::atomic), (Cost{32, 4}));
}

}  // namespace
}  // namespace simt
