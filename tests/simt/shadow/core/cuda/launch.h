// The host executor's version of core/cuda/launch.h: a launch is work queued on a stream, like everything else, and
// runs the kernel's threads as fibers when its turn comes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <source_location>
#include <string>
#include <tuple>
#include <utility>

#include "core/cuda/shared_memory.h"
#include "core/error.h"
#include "tests/simt/executor.h"
#include "tests/simt/streams.h"

namespace vqlm::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  std::source_location where = std::source_location::current();
};

inline std::string describe(const LaunchShape& shape) {
  const auto extents = [](const dim3& d) {
    return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z);
  };
  return std::string(shape.where.file_name()) + ":" + std::to_string(shape.where.line()) + " (grid " +
         extents(shape.grid) + ", block " + extents(shape.block) + ", " + std::to_string(shape.shared_bytes) +
         " B of shared memory)";
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  const simt::Grid grid{shape.grid,
                        shape.block,
                        shape.shared_bytes,
                        shape.where,
                        reinterpret_cast<const void*>(kernel),
                        shape.shared_bytes > shared_bytes_without_permission};
  if (const char* problem = simt::invalid_shape(grid)) {
    throw Error("kernel launch at " + describe(shape) + ": " + problem);
  }
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::remove_const_t<Parameters>...> arguments;
  };
  const cudaError_t status = simt::enqueue(
      shape.stream, [grid, call = Call{kernel, {static_cast<Parameters>(std::forward<Arguments>(arguments))...}}] {
        simt::run_grid(
            grid,
            [](const void* p) {
              std::apply(static_cast<const Call*>(p)->kernel, static_cast<const Call*>(p)->arguments);
            },
            &call);
        return true;
      });
  if (status != cudaSuccess) {
    throw Error("kernel launch at " + describe(shape) + ": " + cudaGetErrorString(status));
  }
}

template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  return reinterpret_cast<T*>(simt::dynamic_shared_memory());
}

}  // namespace vqlm::cuda
