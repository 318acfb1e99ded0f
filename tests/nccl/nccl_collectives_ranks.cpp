// Every collective over NCCL, or over its stand-in on deferred streams, with small integers: sums are exact.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/nccl/device_arrays.h"
#include "tests/nccl/nccl_world.h"

namespace vqlm {
namespace {

using testing::ComputeStream;
using testing::DeviceArray;

/// Rank's element i, in [1, 40]: sums of 4 ranks fit u8 and bf16's 8 bits.
std::vector<int> elements(int rank, std::int64_t begin, std::int64_t count) {
  std::vector<int> x;
  for (std::int64_t i = begin; i < begin + count; ++i) x.push_back(1 + static_cast<int>((i * 7 + rank * 11) % 40));
  return x;
}

std::vector<int> reduced(int ranks, std::int64_t begin, std::int64_t count, Reduce op) {
  std::vector<int> result = elements(0, begin, count);
  for (int rank = 1; rank < ranks; ++rank) {
    const std::vector<int> x = elements(rank, begin, count);
    for (std::size_t i = 0; i < x.size(); ++i) {
      result[i] = op == Reduce::sum ? result[i] + x[i] : std::max(result[i], x[i]);
    }
  }
  return result;
}

const std::vector<std::int64_t> counts = {0, 1, 5, 1000, 4099};

class NcclCollectives : public ::testing::TestWithParam<DType> {
 protected:
  DeviceArray array(const std::vector<int>& values) { return DeviceArray(compute_, values, GetParam()); }
  DeviceArray zeros(std::int64_t count) { return array(std::vector<int>(static_cast<std::size_t>(count))); }
  std::vector<Reduce> ops() const {
    if (GetParam() == DType::u8) return {};
    if (GetParam() == DType::bf16) return {Reduce::sum};
    return {Reduce::sum, Reduce::max};
  }

  std::unique_ptr<NcclCommunicator> world_ = testing::nccl_world();
  ComputeStream compute_;
};

std::string dtype_name(const ::testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}

INSTANTIATE_TEST_SUITE_P(DTypes, NcclCollectives,
                         ::testing::Values(DType::f32, DType::bf16, DType::f64, DType::i32, DType::u8), dtype_name);

TEST_P(NcclCollectives, AllReduce) {
  for (const std::int64_t n : counts) {
    for (const Reduce op : ops()) {
      const DeviceArray x = array(elements(world_->rank(), 0, n));
      compute_.wait(world_->all_reduce(x.view(), op, compute_));
      EXPECT_EQ(x.values(), reduced(world_->size(), 0, n, op)) << n;
    }
  }
}

TEST_P(NcclCollectives, ReduceScatter) {
  for (const std::int64_t n : counts) {
    for (const Reduce op : ops()) {
      const std::int64_t begin = n * world_->rank();
      const auto given = elements(world_->rank(), 0, n * world_->size());
      const DeviceArray in = array(given);
      const DeviceArray out = zeros(n);
      compute_.wait(world_->reduce_scatter(out.view(), in.view(), op, compute_));
      EXPECT_EQ(out.values(), reduced(world_->size(), begin, n, op)) << n;
      EXPECT_EQ(in.values(), given);

      compute_.wait(world_->reduce_scatter(in.range(begin, n), in.view(), op, compute_));
      const auto in_place = in.values();
      EXPECT_EQ(std::vector<int>(in_place.begin() + begin, in_place.begin() + begin + n),
                reduced(world_->size(), begin, n, op))
          << "in place, " << n;
    }
  }
}

TEST_P(NcclCollectives, AllGather) {
  for (const std::int64_t n : counts) {
    std::vector<int> expected;
    for (int rank = 0; rank < world_->size(); ++rank) {
      const auto part = elements(rank, 0, n);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    const auto mine = elements(world_->rank(), 0, n);
    const DeviceArray in = array(mine);
    const DeviceArray out = zeros(n * world_->size());
    compute_.wait(world_->all_gather(out.view(), in.view(), compute_));
    EXPECT_EQ(out.values(), expected) << n;

    std::vector<int> whole(expected.size());
    std::copy(mine.begin(), mine.end(), whole.begin() + n * world_->rank());
    const DeviceArray shared = array(whole);
    compute_.wait(world_->all_gather(shared.view(), shared.range(n * world_->rank(), n), compute_));
    EXPECT_EQ(shared.values(), expected) << "in place, " << n;
  }
}

TEST_P(NcclCollectives, AllToAll) {
  for (const std::int64_t n : counts) {
    const DeviceArray in = array(elements(world_->rank(), 0, n * world_->size()));
    const DeviceArray out = zeros(n * world_->size());
    compute_.wait(world_->all_to_all(out.view(), in.view(), compute_));
    std::vector<int> expected;
    for (int rank = 0; rank < world_->size(); ++rank) {
      const auto block = elements(rank, n * world_->rank(), n);
      expected.insert(expected.end(), block.begin(), block.end());
    }
    EXPECT_EQ(out.values(), expected) << n;
  }
}

// Blocks of none, n and 2 n elements, and none at all from or for the last rank of several: it takes part all the same, and the
// calls after it are its own.
TEST_P(NcclCollectives, AllToAllOfUnevenBlocks) {
  const int self = world_->rank(), ranks = world_->size();
  for (const bool last_has_none : {false, true}) {
    for (const std::int64_t n : counts) {
      const auto count = [&](int from, int to) -> std::int64_t {
        if (last_has_none && ranks > 1 && (from == ranks - 1 || to == ranks - 1)) return 0;
        return (from + 2 * to) % 3 * n;
      };
      std::vector<std::int64_t> in_counts, out_counts;
      std::vector<int> given, expected;
      for (int peer = 0; peer < ranks; ++peer) {
        in_counts.push_back(count(self, peer));
        out_counts.push_back(count(peer, self));
        const auto sent = elements(self, 1000 * peer, in_counts.back());
        const auto received = elements(peer, 1000 * self, out_counts.back());
        given.insert(given.end(), sent.begin(), sent.end());
        expected.insert(expected.end(), received.begin(), received.end());
      }
      const DeviceArray in = array(given), out = array(std::vector<int>(expected.size()));
      compute_.wait(world_->all_to_all_v(out.view(), out_counts, in.view(), in_counts, compute_));
      EXPECT_EQ(out.values(), expected) << n;
      EXPECT_EQ(in.values(), given) << n;
      const DeviceArray flag = array({1 + self});
      compute_.wait(world_->broadcast(flag.view(), ranks - 1, compute_));
      EXPECT_EQ(flag.values(), std::vector<int>{ranks}) << n;
    }
  }
}

TEST_P(NcclCollectives, Broadcast) {
  for (const std::int64_t n : counts) {
    for (int root = 0; root < world_->size(); ++root) {
      const DeviceArray x = array(elements(world_->rank(), 0, n));
      compute_.wait(world_->broadcast(x.view(), root, compute_));
      EXPECT_EQ(x.values(), elements(root, 0, n)) << n << " from " << root;
    }
  }
}

// One event, the last one's, covers all calls between group_begin and group_end.
TEST_P(NcclCollectives, GroupedCallsEndTogether) {
  const int ranks = world_->size();
  const std::vector<std::int64_t> parts = {3, 1000, 1};
  std::vector<std::unique_ptr<DeviceArray>> arrays;
  for (const std::int64_t n : parts) {
    std::vector<int> whole(static_cast<std::size_t>(n * ranks));
    std::fill_n(whole.begin() + n * world_->rank(), n, 10 + world_->rank());
    arrays.push_back(std::make_unique<DeviceArray>(compute_, whole, GetParam()));
  }
  Event last;
  world_->group_begin();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    last = world_->all_gather(arrays[i]->view(), arrays[i]->range(parts[i] * world_->rank(), parts[i]), compute_);
  }
  world_->group_end();
  compute_.wait(last);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::vector<int> expected;
    for (int rank = 0; rank < ranks; ++rank) {
      expected.insert(expected.end(), static_cast<std::size_t>(parts[i]), 10 + rank);
    }
    EXPECT_EQ(arrays[i]->values(), expected) << i;
  }
}

}  // namespace
}  // namespace vqlm
