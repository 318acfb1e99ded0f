#include "dist/process_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/cpu/cpu_backend.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(ResolveDataSize, TakesWhatIsLeftForZero) {
  EXPECT_EQ(resolve_data_size(8, 0, 2), 4);
  EXPECT_EQ(resolve_data_size(8, 4, 2), 4);
  EXPECT_EQ(resolve_data_size(1, 0, 1), 1);
}

TEST(ResolveDataSize, MessagesCarryTheNumbersAndTheWayOut) {
  EXPECT_THAT(
      [] { resolve_data_size(6, 2, 2); },
      ThrowsMessage<UsageError>(::testing::AllOf(HasSubstr("2 * 2 = 4"), HasSubstr("6 ranks"),
                                                 HasSubstr("mpirun -n 4"), HasSubstr("parallel.data = 0"))));
  EXPECT_THAT([] { resolve_data_size(5, 0, 2); },
              ThrowsMessage<UsageError>(::testing::AllOf(HasSubstr("parallel.tensor = 2"),
                                                         HasSubstr("5 ranks"), HasSubstr("mpirun -n 6"))));
  EXPECT_THAT([] { resolve_data_size(4, -1, 2); },
              ThrowsMessage<UsageError>(HasSubstr("parallel.data = -1")));
  EXPECT_THAT([] { resolve_data_size(4, 0, 0); },
              ThrowsMessage<UsageError>(HasSubstr("parallel.tensor = 0")));
}

TEST(CheckDevices, RefusesMoreRanksThanGpusWithTheCountsAndTheWayOut) {
  EXPECT_NO_THROW(check_devices(0, 1, 1));
  EXPECT_NO_THROW(check_devices(3, 4, 8));
  ASSERT_EQ(setenv("CUDA_VISIBLE_DEVICES", "0,5", 1), 0);
  EXPECT_THAT([] { check_devices(0, 3, 2); },
              ThrowsMessage<UsageError>(::testing::AllOf(
                  HasSubstr("3 ranks on this node"), HasSubstr("2 GPUs visible (CUDA_VISIBLE_DEVICES=0,5)"),
                  HasSubstr("at most 2 ranks a node"), HasSubstr("run.device"))));
  ASSERT_EQ(unsetenv("CUDA_VISIBLE_DEVICES"), 0);
  EXPECT_THAT([] { check_devices(1, 2, 1); },
              ThrowsMessage<UsageError>(HasSubstr("CUDA_VISIBLE_DEVICES not set")));
}

TEST(ProcessGrid, AloneNeedsNoMpi) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  EXPECT_EQ(grid.world().size(), 1);
  EXPECT_EQ(grid.data_size(), 1);
  EXPECT_EQ(grid.tensor_size(), 1);
  EXPECT_EQ(grid.data_rank(), 0);
  EXPECT_EQ(grid.tensor_rank(), 0);
}

}  // namespace
}  // namespace vqlm
