// Collectives recorded into a CUDA graph and replayed, alone and between calls that are not recorded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/nccl/device_arrays.h"
#include "tests/nccl/nccl_world.h"

namespace vqlm {
namespace {

using testing::ComputeStream;
using testing::cuda;
using testing::DeviceArray;

/// What `work` enqueues on the stream, as an executable graph.
template <class Work>
std::shared_ptr<CUgraphExec_st> captured(const ComputeStream& stream, Work work) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cuda(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  work();
  cuda(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
  cuda(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
  return {executable, [](cudaGraphExec_t made) {
            nccl_cuda_log_failure(cudaGraphExecDestroy(made), "cudaGraphExecDestroy", 0, "tests");
          }};
}

TEST(NcclGraph, ReplaysRunEveryCollectiveAgain) {
  const auto world = testing::nccl_world();
  const int ranks = world->size();
  const auto tensor = world->split(0, world->rank(), "tensor");
  const ComputeStream compute;
  const DeviceArray sum(compute, std::vector<int>(19, 1), DType::i32);
  const DeviceArray part(compute, {world->rank(), world->rank()}, DType::i32);
  const DeviceArray whole(compute, std::vector<int>(static_cast<std::size_t>(2 * ranks)), DType::i32);
  // Rank p gives p + 1 elements to the first rank, and nothing to the others.
  std::vector<std::int64_t> given(static_cast<std::size_t>(ranks)), taken(given);
  given[0] = world->rank() + 1;
  for (int peer = 0; world->rank() == 0 && peer < ranks; ++peer) taken[static_cast<std::size_t>(peer)] = peer + 1;
  const std::int64_t all = world->rank() == 0 ? std::int64_t{ranks} * (ranks + 1) / 2 : 0;
  const DeviceArray collected(compute, std::vector<int>(static_cast<std::size_t>(all)), DType::i32);
  const auto step = captured(compute, [&] {
    compute.wait(world->all_to_all_v(collected.view(), taken, sum.range(0, given[0]), given, compute));
    compute.wait(tensor->all_reduce(sum.view(), Reduce::sum, compute));
    // Two groups at once, joined at the end: a bucket beside the tensor group's calls.
    const Event beside = world->all_reduce(part.view(), Reduce::max, compute);
    compute.wait(tensor->all_reduce(sum.view(), Reduce::sum, compute));
    compute.wait(beside);
    tensor->group_begin();
    const Event gathered = tensor->all_gather(whole.view(), part.view(), compute);
    tensor->group_end();
    compute.wait(gathered);
  });
  int expected = 1;
  for (int replay = 0; replay < 3; ++replay) {
    cuda(cudaGraphLaunch(step.get(), compute.get()), "cudaGraphLaunch");
    EXPECT_EQ(collected.values(), std::vector<int>(static_cast<std::size_t>(all), expected)) << replay;
    compute.wait(tensor->all_reduce(sum.view(), Reduce::sum, compute));  // not recorded
    expected *= ranks * ranks * ranks;
    EXPECT_EQ(sum.values(), std::vector<int>(19, expected)) << replay;
    EXPECT_EQ(whole.values(), std::vector<int>(static_cast<std::size_t>(2 * ranks), ranks - 1)) << replay;
  }
}

}  // namespace
}  // namespace vqlm
