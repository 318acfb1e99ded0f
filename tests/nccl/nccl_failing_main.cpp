// Ranks that meet a failure in their collectives, planted by the stand-in's environment or by the argument. Every rank
// must end with a message; a rank that comes to the end exits with 0.
//   mismatch   rank 1 calls another collective than the others
//   count      rank 1 calls with another count
//   slow       rank 1 works for longer than the time-out while the others wait for its broadcast; slow_expected: inside
//              expect_long_wait
//   thrown     rank 0 throws with a collective of one group in flight that rank 1 never joins: the other group, which is
//              destroyed first, must not wait for it
//   graph      a graph that captured a collective outlives its communicator
//   graph_left the same while an exception leaves: the communicator is left alone
//   left       rank 1 does not make the last call, but stays alive for much longer than the time-out
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <string_view>
#include <thread>

#include "core/cuda/cuda_backend.h"
#include "core/error.h"
#include "tests/nccl/device_arrays.h"

#include "dist/mpi_session.h"
#include "dist/nccl_communicator.h"
#include "dist/nccl_settings.h"

namespace vqlm {
namespace {

constexpr double timeout_seconds = 2;

void run(const MpiSession& session, std::string_view how) {
  NcclOptions options;
  options.timeout_seconds = timeout_seconds;
  options.on_failure = [&session](const std::string& message) { session.abort(message, 1); };
  const std::unique_ptr<Backend> device = how.starts_with("graph") ? make_cuda_backend(session.rank()) : nullptr;
  Graph graph;
  const auto host = session.split(0, session.rank(), "world");
  const auto world = NcclCommunicator::make_world(*host, options);
  const auto data = world->split(0, session.rank(), "data");
  const testing::ComputeStream compute;
  const bool odd_one = session.rank() == 1;
  if (device != nullptr) {
    const Buffer buffer = device->allocate(8 * sizeof(float), MemoryUse::workspace);
    graph = device->capture([&] {
      device->wait(device->compute_stream(), data->all_reduce(buffer.view({8}), Reduce::sum, device->compute_stream()));
    });
    if (how == "graph_left") throw Error("planted failure");
    return;
  }
  if (how == "thrown") {
    if (odd_one) std::this_thread::sleep_for(std::chrono::seconds(60));
    void* leaked = nullptr;  // freeing it would wait for the collective, too
    testing::cuda(cudaMalloc(&leaked, 8 * sizeof(float)), "cudaMalloc");
    world->all_reduce(Tensor(leaked, DType::f32, {8}), Reduce::sum, compute);
    throw Error("planted failure");
  }
  const testing::DeviceArray x(compute, std::vector<int>(8, 1), DType::f32);
  if (how == "slow" || how == "slow_expected") {
    const auto wait = how == "slow" ? nullptr : world->expect_long_wait("counting tokens");
    if (odd_one) std::this_thread::sleep_for(std::chrono::duration<double>(2.5 * timeout_seconds));
    compute.wait(world->broadcast(x.view(), 1, compute));
    compute.synchronize();
  }
  for (int call = 0; call < 4; ++call) {
    const bool last = call == 3;
    if (last && odd_one && how == "left") std::this_thread::sleep_for(std::chrono::seconds(60));
    if (last && odd_one && how == "mismatch") {
      compute.wait(data->broadcast(x.view(), 0, compute));
    } else {
      compute.wait(data->all_reduce(x.range(0, last && odd_one && how == "count" ? 5 : 8), Reduce::sum, compute));
    }
    compute.wait(world->all_reduce(x.view(), Reduce::max, compute));
  }
  compute.synchronize();
  std::printf("rank %d: came to the end\n", session.rank());
}

}  // namespace
}  // namespace vqlm

int main(int argc, char** argv) {
  vqlm::set_nccl_environment();
  const vqlm::MpiSession session;
  try {
    vqlm::run(session, argc > 1 ? argv[1] : "");
  } catch (const std::exception& error) {
    session.abort(error.what(), 1);
  }
  return 0;
}
