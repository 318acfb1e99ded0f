// What only the stand-in's deferred streams can show.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

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

/// The stand-in makes no communicator with another limit.
class ExpectedBlocks {
 public:
  explicit ExpectedBlocks(int limit) { ::setenv("NCCL_STANDIN_MAX_CTAS", std::to_string(limit).c_str(), 1); }
  ~ExpectedBlocks() { ::unsetenv("NCCL_STANDIN_MAX_CTAS"); }
};

TEST(NcclStandin, EveryGroupIsLimitedToItsBlocks) {
  testing::cuda(cudaSetDevice(testing::own_device()), "cudaSetDevice");
  NcclOptions options;
  options.on_failure = [](const std::string& message) { testing::session().abort(message, 1); };
  for (const int limit : {0, 1, 12, 64}) {
    options.max_ctas = limit;
    const auto host = testing::session().split(0, testing::session().rank(), "world");
    const ExpectedBlocks expected(limit);
    const auto world = NcclCommunicator::make_world(*host, options);
    const auto data = world->split(0, testing::session().rank(), "data");
    EXPECT_EQ(data->size(), world->size());
  }
  options.max_ctas = 7;
  const auto host = testing::session().split(0, testing::session().rank(), "world");
  const ExpectedBlocks another(8);
  EXPECT_THROW(NcclCommunicator::make_world(*host, options), Error);
}

}  // namespace
}  // namespace vqlm
