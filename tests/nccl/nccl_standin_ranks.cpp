// What only the stand-in's deferred streams can show.
#include <gtest/gtest.h>

#include "tests/nccl/device_arrays.h"
#include "tests/nccl/nccl_world.h"

namespace vqlm {
namespace {

using testing::ComputeStream;
using testing::DeviceArray;

// The planted fault that deferred streams are for: a reader that does not wait for the event. If this stops showing,
// the other tests prove nothing about waits.
TEST(NcclStandin, AMissingWaitShows) {
  const auto world = testing::nccl_world();
  if (world->size() == 1) GTEST_SKIP() << "the sum over one rank is its input";
  const ComputeStream compute;
  int right = 0;
  int wrong = 0;
  for (int attempt = 0; attempt < 30; ++attempt) {
    const DeviceArray x(compute, std::vector<int>(10, 1), DType::f32);
    const Event done = world->all_reduce(x.view(), Reduce::sum, compute);
    wrong += x.values() != std::vector<int>(10, world->size()) ? 1 : 0;
    compute.wait(done);
    right += x.values() == std::vector<int>(10, world->size()) ? 1 : 0;
  }
  EXPECT_EQ(right, 30);
  EXPECT_GT(wrong, 0);
}

}  // namespace
}  // namespace vqlm
