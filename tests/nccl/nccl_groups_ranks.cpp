// Several groups of one rank at the same time, the barrier, and what the host sees.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/nccl/device_arrays.h"
#include "tests/nccl/nccl_world.h"

namespace vqlm {
namespace {

using testing::ComputeStream;
using testing::DeviceArray;

/// data x tensor groups as ProcessGrid makes them.
struct Groups {
  explicit Groups(int tensor_ranks)
      : world(testing::nccl_world()),
        data(world->split(world->rank() % tensor_ranks, world->rank() / tensor_ranks, "data")),
        tensor(world->split(world->rank() / tensor_ranks, world->rank() % tensor_ranks, "tensor")) {}

  std::unique_ptr<NcclCommunicator> world;
  std::unique_ptr<NcclCommunicator> data;
  std::unique_ptr<NcclCommunicator> tensor;
};

template <class Body>
void for_each_grid(Body body) {
  const int ranks = testing::session().size();
  for (int tensor = 1; tensor <= ranks; ++tensor) {
    if (ranks % tensor == 0) body(Groups(tensor));
  }
}

TEST(NcclGroups, SplitHasTheGridsNeighbours) {
  for_each_grid([](const Groups& groups) {
    EXPECT_EQ(groups.data->size() * groups.tensor->size(), groups.world->size());
    EXPECT_EQ(groups.data->rank() * groups.tensor->size() + groups.tensor->rank(), groups.world->rank());
    EXPECT_EQ(groups.tensor->name(), "tensor");
  });
}

// As in backward: a bucket's reduction stays in flight while the tensor group goes on and its results are used.
TEST(NcclGroups, GroupsInFlightTogetherKeepTheirResults) {
  for_each_grid([](const Groups& groups) {
    const ComputeStream compute;
    const int rank = groups.world->rank();
    const int ranks = groups.world->size();
    constexpr int steps = 20;
    std::vector<std::unique_ptr<DeviceArray>> buckets;
    std::vector<Event> reductions;
    const DeviceArray activations(compute, std::vector<int>(333, 1), DType::f32);
    const DeviceArray total(compute, {rank + 1}, DType::i32);
    for (int step = 0; step < steps; ++step) {
      buckets.push_back(std::make_unique<DeviceArray>(compute, std::vector<int>(5000, rank + step), DType::f32));
      reductions.push_back(groups.data->all_reduce(buckets.back()->view(), Reduce::sum, compute));
      compute.wait(groups.tensor->all_reduce(activations.view(), Reduce::max, compute));
    }
    compute.wait(groups.world->all_reduce(total.view(), Reduce::sum, compute));
    for (const Event& reduction : reductions) compute.wait(reduction);

    EXPECT_EQ(activations.values(), std::vector<int>(333, 1));
    EXPECT_EQ(total.values(), std::vector<int>{ranks * (ranks + 1) / 2});
    for (int step = 0; step < steps; ++step) {
      int sum = 0;
      for (int member = groups.tensor->rank(); member < ranks; member += groups.tensor->size()) sum += member + step;
      EXPECT_EQ(buckets[static_cast<std::size_t>(step)]->values(), std::vector<int>(5000, sum)) << step;
    }
  });
}

// Each collective reads what the one before has written on the other group's stream: only events order them.
TEST(NcclGroups, EventsOrderCollectivesOfDifferentGroups) {
  for_each_grid([](const Groups& groups) {
    const ComputeStream compute;
    const DeviceArray x(compute, std::vector<int>(77, 1), DType::i32);
    int expected = 1;
    for (int step = 0; step < 4; ++step) {
      compute.wait(groups.tensor->all_reduce(x.view(), Reduce::sum, compute));
      compute.wait(groups.data->all_reduce(x.view(), Reduce::sum, compute));
      expected *= groups.world->size();
    }
    EXPECT_EQ(x.values(), std::vector<int>(77, expected));
  });
}

// The clock is the node's, so this holds for any delay: nobody leaves before the last one has come.
TEST(NcclBarrier, NobodyLeavesBeforeTheLastHasCome) {
  const auto world = testing::nccl_world();
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  if (world->rank() == world->size() - 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  double last_arrival = now();
  world->barrier();
  const double departure = now();
  const auto host = testing::session().split(0, testing::session().rank(), "world");
  host->all_reduce(Tensor(&last_arrival, DType::f64, {1}), Reduce::max, Stream{});
  EXPECT_GE(departure, last_arrival);
}

TEST(NcclEvents, AStepsHundredsOfCallsLeaveNothingBehind) {
  const auto world = testing::nccl_world();
  const ComputeStream compute;
  const DeviceArray x(compute, {world->rank()}, DType::i32);
  for (int call = 0; call < 500; ++call) compute.wait(world->all_reduce(x.view(), Reduce::max, compute));
  EXPECT_EQ(x.values(), std::vector<int>{world->size() - 1});
}

}  // namespace
}  // namespace vqlm
