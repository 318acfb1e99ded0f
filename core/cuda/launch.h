// How every kernel starts, and its dynamic shared memory. tests/simt/shadow/core/cuda/launch.h is the host executor's
// version of the same interface.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <source_location>
#include <string>
#include <utility>

#include "core/cuda/shared_memory.h"
#include "core/error.h"

namespace vqlm::cuda {

/// Where and how wide a kernel runs: `launch(kernel, {grid, block, shared_bytes, stream}, arguments...)`. The last
/// member is filled in by the compiler; error messages name it.
struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  std::source_location where = std::source_location::current();
};

/// For messages: "core/cuda/rmsnorm.cu:41 (grid 8x1x1, block 256x1x1, 0 B of shared memory)".
inline std::string describe(const LaunchShape& shape) {
  const auto extents = [](const dim3& d) {
    return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z);
  };
  return std::string(shape.where.file_name()) + ":" + std::to_string(shape.where.line()) + " (grid " +
         extents(shape.grid) + ", block " + extents(shape.block) + ", " + std::to_string(shape.shared_bytes) +
         " B of shared memory)";
}

/// Queues `kernel` on the shape's stream; arguments are converted to the kernel's parameter types and copied. Throws
/// Error naming the call's place where the launch is refused. An empty grid is refused: launchers return early instead.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  const auto check = [&shape](cudaError_t status) {
    if (status != cudaSuccess) {
      throw Error("kernel launch at " + describe(shape) + ": " + cudaGetErrorString(status));
    }
  };
  // More has to be asked for, per kernel and device.
  if (shape.shared_bytes > shared_bytes_without_permission) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(std::forward<Arguments>(arguments))...));
}

/// The block's dynamic shared memory, aligned to 128 bytes (the widest alignment that bulk copies ask for).
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char vqlm_dynamic_shared[];
  return reinterpret_cast<T*>(vqlm_dynamic_shared);
}

}  // namespace vqlm::cuda
