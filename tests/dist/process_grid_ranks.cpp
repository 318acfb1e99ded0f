#include "dist/process_grid.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "tests/ranks.h"

namespace vqlm {
namespace {

using testing::session;

std::int32_t sum_over(Communicator& group, std::int32_t value) {
  group.all_reduce(Tensor(&value, DType::i32, {1}), Reduce::sum, Stream{});
  return value;
}

TEST(ProcessGrid, EveryFactorizationHasNeighbouringTensorRanks) {
  const auto backend = make_cpu_backend(1);
  const int ranks = session().size();
  const int rank = session().rank();
  for (int tensor = 1; tensor <= ranks; ++tensor) {
    if (ranks % tensor != 0) continue;
    for (const int data : {ranks / tensor, 0}) {
      SCOPED_TRACE(::testing::Message() << "data " << data << ", tensor " << tensor);
      const ProcessGrid grid(session(), *backend, data, tensor);
      EXPECT_EQ(grid.data_size(), ranks / tensor);
      EXPECT_EQ(grid.tensor_size(), tensor);
      EXPECT_EQ(grid.data_rank() * tensor + grid.tensor_rank(), rank);
      EXPECT_EQ(grid.world().size(), ranks);
      EXPECT_EQ(grid.world().rank(), rank);
      // Sums of bits name the members: 2^0..2^(n-1) are distinct in every subset.
      EXPECT_EQ(sum_over(grid.world(), 1 << rank), (1 << ranks) - 1);
      EXPECT_EQ(sum_over(grid.tensor(), 1 << rank), ((1 << tensor) - 1) << (grid.data_rank() * tensor));
      std::int32_t column = 0;
      for (int d = 0; d < grid.data_size(); ++d) column |= 1 << (d * tensor + grid.tensor_rank());
      EXPECT_EQ(sum_over(grid.data(), 1 << rank), column);
      EXPECT_EQ(grid.world().name(), "world");
      EXPECT_EQ(grid.data().name(), "data");
      EXPECT_EQ(grid.tensor().name(), "tensor");
    }
  }
}

TEST(ProcessGrid, WrongProductThrowsOnEveryRank) {
  const auto backend = make_cpu_backend(1);
  EXPECT_THROW(ProcessGrid(session(), *backend, session().size(), 2), UsageError);
  EXPECT_THROW(ProcessGrid(session(), *backend, 0, session().size() + 1), UsageError);
}

TEST(MpiSession, CountsTheRanksOfThisNode) {
  EXPECT_EQ(session().local_size(), session().size());  // tests run on one machine
  EXPECT_EQ(session().local_rank(), session().rank());
}

}  // namespace
}  // namespace vqlm
