// Kernels with one fault each, of the kinds that the executor and the sanitizers must find: `planted_faults NAME` runs
// one, CMakeLists.txt says what must report it. "none" is the same code without a fault.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/cuda/device_utils.h"
#include "core/cuda/launch.h"
#include "core/cuda/tensor_core.h"
#include "tests/simt/planted_main.h"

namespace vqlm::cuda {
namespace {

enum class Fault {
  none,
  missing_block_barrier,
  missing_warp_barrier,
  missing_barrier_before_reuse,
  missing_copy_wait,
  static_shared_overrun,
  dynamic_shared_overrun,
  global_overrun,
  barrier_not_reached,
  lane_not_reached,
  divergent_barriers,
  wrong_mask,
  misaligned_ldmatrix,
};

constexpr const char* names[] = {"none",
                                 "missing_block_barrier",
                                 "missing_warp_barrier",
                                 "missing_barrier_before_reuse",
                                 "missing_copy_wait",
                                 "static_shared_overrun",
                                 "dynamic_shared_overrun",
                                 "global_overrun",
                                 "barrier_not_reached",
                                 "lane_not_reached",
                                 "divergent_barriers",
                                 "wrong_mask",
                                 "misaligned_ldmatrix"};

constexpr int threads = 64;
constexpr int rounds = 3;

// Each round every thread passes its number to its neighbours through shared memory: across warps (block barrier),
// within the warp (warp barrier), and through an asynchronous copy.
__global__ void faulty_kernel(int* out, const int* in, Fault fault) {
  __shared__ __align__(16) int across[threads];
  int* within = dynamic_shared<int>();
  const int thread = static_cast<int>(threadIdx.x), neighbour = (thread + 1) % threads;
  const int next_lane = thread / 32 * 32 + (thread + 1) % 32;
  int sum = 0;
  for (int round = 0; round < rounds; ++round) {
    const bool last = thread == threads - 1;
    across[thread] = thread + round;
    within[thread] = thread * 2;
    if (fault == Fault::static_shared_overrun && last) across[thread + round] = thread + round;
    if (fault == Fault::dynamic_shared_overrun && last) within[thread + round] = thread * 2;
    if (fault != Fault::missing_warp_barrier) __syncwarp();
    sum += within[next_lane];
    if (fault == Fault::barrier_not_reached && thread == 40) __syncwarp(1u << 8 | 1u << 9);
    if (fault == Fault::lane_not_reached && thread != 7) __syncwarp();
    if (fault == Fault::wrong_mask) sum += __shfl_sync(thread % 32 < 16 ? full_mask : 0xffff0000u, sum, 20);
    if (fault == Fault::divergent_barriers && thread < 32) {
      __syncthreads();
    } else if (fault != Fault::missing_block_barrier) {
      __syncthreads();
    }
    sum += across[neighbour];
    if (fault != Fault::missing_barrier_before_reuse && fault != Fault::missing_block_barrier) __syncthreads();
  }
  __shared__ __align__(16) int copied[threads * 4];
  cp_async_16(&copied[thread * 4], in + thread * 4, true);
  cp_async_commit();
  if (fault != Fault::missing_copy_wait) cp_async_wait<0>();
  __syncthreads();
  sum += copied[neighbour * 4];
  unsigned r[2];
  const char* row = reinterpret_cast<const char*>(&copied[thread % 16 * 4]);
  ldmatrix_x2(r, row + (fault == Fault::misaligned_ldmatrix ? 8 : 0));
  out[thread + (fault == Fault::global_overrun ? 1 : 0)] = sum;
}

int expected(int thread) {
  const int neighbour = (thread + 1) % threads, next_lane = thread / 32 * 32 + (thread + 1) % 32;
  return rounds * (neighbour + next_lane * 2) + rounds * (rounds - 1) / 2 + neighbour * 4;
}

int run(Fault fault) {
  cudaStream_t stream = nullptr;
  int *in = nullptr, *out = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 2;
  if (cudaMalloc(&in, threads * 16) != cudaSuccess || cudaMalloc(&out, threads * 4) != cudaSuccess) return 2;
  std::vector<int> values(threads * 4), results(threads);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i);
  if (cudaMemcpy(in, values.data(), threads * 16, cudaMemcpyHostToDevice) != cudaSuccess) return 2;
  launch(faulty_kernel, {2, threads, sizeof(int) * threads, stream}, out, in, fault);
  if (cudaStreamSynchronize(stream) != cudaSuccess) return 2;
  if (cudaMemcpy(results.data(), out, threads * 4, cudaMemcpyDeviceToHost) != cudaSuccess) return 2;
  static_cast<void>(cudaFree(in));
  static_cast<void>(cudaFree(out));
  static_cast<void>(cudaStreamDestroy(stream));
  for (int thread = 0; thread < threads; ++thread) {
    if (results[static_cast<std::size_t>(thread)] == expected(thread)) continue;
    std::printf("wrong result\n");
    return 3;
  }
  std::printf("right result\n");
  return 0;
}

}  // namespace
}  // namespace vqlm::cuda

int main(int argc, char** argv) {
  return simt::run_planted(argc, argv, vqlm::cuda::names,
                           [](std::size_t i) { return vqlm::cuda::run(static_cast<vqlm::cuda::Fault>(i)); });
}
