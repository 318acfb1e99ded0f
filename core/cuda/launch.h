// How every kernel starts, and its dynamic shared memory. tests/simt/shadow/core/cuda/launch.h is the host executor's
// version of the same interface.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "core/cuda/dependent_launch.h"
#include "core/cuda/shared_memory.h"
#include "core/error.h"

namespace vqlm::cuda {

/// Where and how wide a kernel runs: `launch(kernel, {grid, block, shared_bytes, stream}, arguments...)`. The last
/// member is filled in by the compiler; error messages name it.
struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  LaunchStream stream;
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

/// A kernel whose first parameter this is may begin before the kernels in front of it in the stream have ended (programmatic
/// dependent launch). It promises that every thread calls wait() on every path, before its first access to global memory, read
/// or write, and before it ends; the compiler says where it is forgotten (an unused parameter), the host executor where it
/// comes too late, tests/cuda/machine_code_test.py what nvcc made of it.
struct GridDependency {
  /// Returns when all earlier kernels have ended and their writes are seen, since each of those waited for its own
  /// predecessors. From then on the next kernel in the stream may be launched: its own wait keeps it from what this one
  /// writes. Below compute capability 9.0 nothing, as launches are ordinary ones there.
  __device__ __forceinline__ void wait() const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
#endif
  }
};

namespace detail {

/// Arguments as the kernel's parameters.
template <class... Parameters>
void launch_kernel(void (*kernel)(Parameters...), const LaunchShape& shape, bool promises,
                   std::type_identity_t<Parameters>... arguments) {
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
  cudaLaunchAttribute dependent{};
  dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  dependent.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &dependent;
  config.numAttrs = shape.stream.next_is_dependent(promises) ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, std::move(arguments)...));
}

}  // namespace detail

/// Queues `kernel` on the shape's stream; arguments are converted to the kernel's parameter types and copied. Throws
/// Error naming the call's place where the launch is refused. An empty grid is refused: launchers return early instead.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  detail::launch_kernel(kernel, shape, false, static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

/// The same for a kernel that waits: as a dependent where the stream allows it.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(GridDependency, Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  detail::launch_kernel(kernel, shape, true, GridDependency{},
                        static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

/// The block's dynamic shared memory, aligned to 128 bytes (the widest alignment that bulk copies ask for).
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char vqlm_dynamic_shared[];
  return reinterpret_cast<T*>(vqlm_dynamic_shared);
}

}  // namespace vqlm::cuda
