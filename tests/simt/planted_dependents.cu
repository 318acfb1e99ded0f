// As planted_faults.cu, for kernels that may begin before their predecessors end (core/cuda/dependent_launch.h): accesses to
// global memory in front of the wait, threads that end without it. Plain accesses are seen where they are counted.
#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

#include "core/cuda/device_utils.h"
#include "core/cuda/launch.h"
#include "core/cuda/tensor_core.h"
#include "tests/simt/executor.h"
#include "tests/simt/planted_main.h"

namespace vqlm::cuda {
namespace {

enum class Fault {
  none,
  read_early,
  written_early,
  updated_early,
  copied_early,
  one_thread_early,
  never_waits,
  one_block_leaves,
  one_thread_leaves,
  behind_a_memset,
};

constexpr const char* names[] = {
    "none",        "read_early",       "written_early",     "updated_early",  "copied_early", "one_thread_early",
    "never_waits", "one_block_leaves", "one_thread_leaves", "behind_a_memset"};

constexpr int threads = 64, blocks = 3;

/// out = in + 1, by way of shared memory, which may be filled before the wait. `total` counts the threads.
__global__ void dependent_kernel(GridDependency dependency, int* out, const int* in, int* total, Fault fault) {
  __shared__ __align__(16) int ones[threads];
  __shared__ __align__(16) int copied[4];
  const int thread = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x) * threads + thread;
  ones[(thread + 1) % threads] = 1;
  __syncthreads();
  atomicAdd(&ones[thread], 0);
  if (fault == Fault::one_block_leaves && blockIdx.x == 1) return;
  if (fault == Fault::one_thread_leaves && i == 70) return;
  int early = 0;
  if (fault == Fault::read_early) early = in[i] - 1;  // what the first launch left
  if (fault == Fault::written_early) out[i] = 0;
  if (fault == Fault::updated_early) atomicAdd(total, 0);
  if (fault == Fault::copied_early && thread == 0) cp_async_16(copied, in, true);
  if (fault == Fault::one_thread_early && i == 150) out[i] = 0;
  if (fault != Fault::never_waits) dependency.wait();
  atomicAdd(total, 1);
  cp_async_commit();
  cp_async_wait<0>();
  out[i] = in[i] + ones[thread] + early;
}

/// The same without a promise: launched in the ordinary way, whatever the stream allows. Its wait is no fault.
__global__ void ordinary_kernel(int* out, const int* in) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), x = in[i];
  GridDependency{}.wait();
  out[i] = x + 1;
}

int run(Fault fault) {
  cudaStream_t stream = nullptr;
  int *in = nullptr, *out = nullptr, *total = nullptr;
  constexpr std::size_t count = threads * blocks, bytes = count * sizeof(int);
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 2;
  if (cudaMalloc(&in, bytes) != cudaSuccess || cudaMalloc(&out, bytes) != cudaSuccess) return 2;
  if (cudaMalloc(&total, sizeof(int)) != cudaSuccess) return 2;
  const std::vector<int> zeros(count);
  std::vector<int> results(count);
  if (cudaMemcpy(in, zeros.data(), bytes, cudaMemcpyHostToDevice) != cudaSuccess) return 2;
  if (cudaMemcpy(total, zeros.data(), sizeof(int), cudaMemcpyHostToDevice) != cudaSuccess) return 2;
  DependentLaunches launches;
  launches.allow(true);
  const LaunchStream to(stream, &launches);
  launch(dependent_kernel, {blocks, threads, 0, to}, out, in, total, Fault::none);  // behind no kernel
  if (fault == Fault::behind_a_memset && cudaMemsetAsync(in, 0, bytes, stream) != cudaSuccess) return 2;
  launch(dependent_kernel, {blocks, threads, 0, to}, in, out, total, fault);
  launch(ordinary_kernel, {blocks, threads, 0, to}, out, in);
  launch(dependent_kernel, {blocks, threads, 0, to}, in, out, total, Fault::none);
  if (simt::launches().all != 4 || simt::launches().dependent != 2) return 2;
  if (cudaStreamSynchronize(stream) != cudaSuccess) return 2;
  if (cudaMemcpy(results.data(), in, bytes, cudaMemcpyDeviceToHost) != cudaSuccess) return 2;
  int counted = 0;
  if (cudaMemcpy(&counted, total, sizeof(int), cudaMemcpyDeviceToHost) != cudaSuccess) return 2;
  static_cast<void>(cudaFree(in));
  static_cast<void>(cudaFree(out));
  static_cast<void>(cudaFree(total));
  static_cast<void>(cudaStreamDestroy(stream));
  const bool right = counted == 3 * static_cast<int>(count) && results == std::vector<int>(count, 4);
  std::printf("%s result\n", right ? "right" : "wrong");
  return right ? 0 : 3;
}

}  // namespace
}  // namespace vqlm::cuda

int main(int argc, char** argv) {
  return simt::run_planted(argc, argv, vqlm::cuda::names,
                           [](std::size_t i) { return vqlm::cuda::run(static_cast<vqlm::cuda::Fault>(i)); });
}
