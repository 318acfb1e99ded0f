#include "dist/process_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  EXPECT_THAT([] { resolve_data_size(6, 2, 2); },
              ThrowsMessage<UsageError>(::testing::AllOf(HasSubstr("2 * 2 = 4"), HasSubstr("6 ranks"),
                                                         HasSubstr("mpirun -n 4"), HasSubstr("parallel.data = 0"))));
  EXPECT_THAT([] { resolve_data_size(5, 0, 2); },
              ThrowsMessage<UsageError>(
                  ::testing::AllOf(HasSubstr("parallel.tensor = 2"), HasSubstr("5 ranks"), HasSubstr("mpirun -n 6"))));
  EXPECT_THAT([] { resolve_data_size(4, -1, 2); }, ThrowsMessage<UsageError>(HasSubstr("parallel.data = -1")));
  EXPECT_THAT([] { resolve_data_size(4, 0, 0); }, ThrowsMessage<UsageError>(HasSubstr("parallel.tensor = 0")));
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
