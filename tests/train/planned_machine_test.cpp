// The machine of plans, its back end and its communicators against times and bytes worked out by hand.
#include "train/engine/planned_machine.h"

#include <gtest/gtest.h>

#include "train/engine/planning_backend.h"
#include "train/engine/planning_communicator.h"

namespace vqlm {
namespace {

TEST(PlanningBackend, ItsMemoryCannotBeTouched) {
  PlannedMachine machine{StatedRates{}};
  PlanningBackend backend(machine, DType::f32);
  const Buffer buffer = backend.allocate(64, MemoryUse::workspace);
  const Tensor tensor = buffer.view({16});
  EXPECT_DEATH(tensor.f32()[3] = 1.0f, "");
}

TEST(PlanningCommunicator, CountsWhatARingSends) {
  PlannedMachine machine(StatedRates{.network_bytes = 100});
  PlanningBackend backend(machine, DType::f32);
  PlanningCommunicator group(machine, "data", 1, 4, Link::network);
  const Buffer buffer = backend.allocate(2 * 400, MemoryUse::workspace);
  const Tensor x = buffer.view({200}).range(0, 100);
  const Tensor y = buffer.view({200}).range(100, 100);
  group.all_reduce(x, Reduce::sum, {});
  group.reduce_scatter(y.range(0, 25), x, Reduce::sum, {});
  group.all_gather(x, x.range(25, 25), {});
  group.all_to_all(y, x, {});
  group.broadcast(x, 2, {});
  const std::vector<double> sent = {600, 300, 300, 300, 400};  // 2 * 3/4, 3/4 and 1 times 400 bytes
  ASSERT_EQ(machine.collectives().size(), sent.size());
  for (std::size_t i = 0; i < sent.size(); ++i) {
    const CollectiveCount& count = machine.collectives()[i];
    EXPECT_EQ(count.payload_bytes, 400) << count.name;
    EXPECT_EQ(count.sent_bytes, sent[i]) << count.name;
    EXPECT_EQ(count.seconds, sent[i] / 100) << count.name;
    EXPECT_EQ(count.ranks, 4);
  }
  EXPECT_EQ(machine.collective_seconds(), 19);
}

// Of different blocks a rank sends those that are not its own, and the larger one of what goes and what comes takes the time, at
// the rate of an all-to-all.
TEST(PlanningCommunicator, CountsTheBlocksOfAnUnevenAllToAll) {
  PlannedMachine machine(StatedRates{.network_bytes = 50, .exchange_bytes = 100});
  PlanningBackend backend(machine, DType::f32);
  PlanningCommunicator group(machine, "world", 1, 4, Link::network);
  const Buffer buffer = backend.allocate(400, MemoryUse::workspace);
  const Tensor many = buffer.view({100}).range(0, 60), few = buffer.view({100}).range(60, 25);
  const std::vector<std::int64_t> of_many = {10, 20, 30, 0}, of_few = {0, 20, 0, 5};
  group.all_to_all_v(few, of_few, many, of_many, {});
  ASSERT_EQ(machine.collectives().size(), 1U);
  const CollectiveCount& count = machine.collectives()[0];
  EXPECT_EQ(count.name, "all_to_all_v");
  EXPECT_EQ(count.payload_bytes, 240);
  EXPECT_EQ(count.sent_bytes, 160);
  EXPECT_EQ(count.seconds, 1.6);
  group.all_to_all_v(many, of_many, few, of_few, {});
  EXPECT_EQ(count.calls, 2);
  EXPECT_EQ(count.payload_bytes, 240 + 100);
  EXPECT_EQ(count.sent_bytes, 160 + 20);
  EXPECT_EQ(count.seconds, 3.2);
}

// A collective of 5 seconds begins at 2, an op of 3 seconds runs beside it, and who waits goes on at 7. A second one on
// the same link waits for the first, one on the other link does not.
TEST(PlannedMachine, CollectivesRunBesideOpsAndAfterEachOther) {
  PlannedMachine machine({.product_flops = 10, .memory_bytes = 1, .network_bytes = 1, .tensor_link_bytes = 2});
  machine.add_op("matmul", {20, 1, 0});
  EXPECT_EQ(machine.now(), 2);
  const double first = machine.add_collective("data", "all_reduce", 2, Link::network, 5, 5);
  const double second = machine.add_collective("data", "all_reduce", 2, Link::network, 1, 1);
  const double other = machine.add_collective("tensor", "all_reduce", 2, Link::tensor, 4, 4);
  machine.add_op("copy", {1, 1, 2});
  EXPECT_EQ(first, 7);
  EXPECT_EQ(second, 8);
  EXPECT_EQ(other, 4);
  machine.wait_until(other);
  EXPECT_EQ(machine.now(), 5);
  machine.wait_until(first);
  EXPECT_EQ(machine.now(), 7);
  EXPECT_EQ(machine.product_seconds(), 2);
  EXPECT_EQ(machine.memory_seconds(), 3);
  EXPECT_EQ(machine.collective_seconds(), 8);
  ASSERT_EQ(machine.collectives().size(), 2U);
  EXPECT_EQ(machine.collectives()[0].calls, 2);
  machine.clear();
  EXPECT_EQ(machine.now(), 0);
  EXPECT_TRUE(machine.ops().empty() && machine.collectives().empty());
}

// Launches and latencies come on top of the work, an all-to-all has a rate of its own, and a job within a node one link.
TEST(PlannedMachine, WhatIsLostBesideTheWork) {
  PlannedMachine machine({.product_flops = 10,
                          .memory_bytes = 1,
                          .network_bytes = 4,
                          .tensor_link_bytes = 8,
                          .exchange_bytes = 2,
                          .one_link = true,
                          .op_seconds = 0.5,
                          .collective_seconds = 0.25});
  machine.add_op("matmul", {20, 1, 0});
  EXPECT_EQ(machine.now(), 2.5);
  EXPECT_EQ(machine.product_seconds(), 2);
  EXPECT_EQ(machine.launch_seconds(), 0.5);
  EXPECT_EQ(machine.add_collective("data", "all_reduce", 2, Link::network, 4, 4), 3.75);
  EXPECT_EQ(machine.add_collective("world", "all_to_all", 2, Link::network, 4, 4), 6);
  EXPECT_EQ(machine.add_collective("tensor", "all_to_all", 2, Link::tensor, 8, 8), 3.75);
  EXPECT_EQ(machine.flops(), 20);
  EXPECT_EQ(machine.sent_bytes(), 16);

  machine.clear();
  PlanningBackend backend(machine, DType::f32);
  const ProcessGrid grid = make_planning_grid(machine, backend, 2, 2, 0);
  const Buffer buffer = backend.allocate(32, MemoryUse::workspace);
  grid.data().all_reduce(buffer.view({8}), Reduce::sum, {});  // sends 32 bytes by the tensor group's link: 4.25 s
  const Event second = grid.tensor().all_reduce(buffer.view({8}), Reduce::sum, {});
  backend.wait({}, second);
  EXPECT_EQ(machine.now(), 8.5);
}

}  // namespace
}  // namespace vqlm
