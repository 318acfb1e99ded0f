// The host executor's version of core/cuda/launch.h: a launch is work queued on a stream, like everything else, and
// runs the kernel's threads as fibers when its turn comes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <source_location>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/cuda/dependent_launch.h"
#include "core/cuda/shared_memory.h"
#include "core/error.h"
#include "tests/simt/executor.h"
#include "tests/simt/streams.h"

namespace vqlm::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  LaunchStream stream;
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

/// Kernels keep the promise here however they are launched: run_grid holds them to it.
struct GridDependency {
  void wait() const { simt::grid_dependency_wait(); }
};

namespace detail {

template <class... Parameters>
void launch_kernel(void (*kernel)(Parameters...), const LaunchShape& shape, bool promises,
                   std::type_identity_t<Parameters>... arguments) {
  const simt::Grid grid{.grid = shape.grid,
                        .block = shape.block,
                        .shared_bytes = shape.shared_bytes,
                        .where = shape.where,
                        .kernel = reinterpret_cast<const void*>(kernel),
                        .permitted = shape.shared_bytes > shared_bytes_without_permission,
                        .waits = promises};
  if (const char* problem = simt::invalid_shape(grid)) {
    throw Error("kernel launch at " + describe(shape) + ": " + problem);
  }
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::remove_const_t<Parameters>...> arguments;
  };
  const bool dependent = shape.stream.next_is_dependent(promises);
  simt::count_launch(dependent);
  auto run = [grid, call = Call{kernel, {std::move(arguments)...}}] {
    simt::run_grid(
        grid,
        [](const void* p) { std::apply(static_cast<const Call*>(p)->kernel, static_cast<const Call*>(p)->arguments); },
        &call);
    return true;
  };
  const cudaError_t status =
      simt::enqueue(shape.stream, std::move(run), dependent ? simt::Work::dependent_kernel : simt::Work::kernel);
  if (status != cudaSuccess) {
    throw Error("kernel launch at " + describe(shape) + ": " + cudaGetErrorString(status));
  }
}

}  // namespace detail

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  detail::launch_kernel(kernel, shape, false, static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(GridDependency, Parameters...), const LaunchShape& shape, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments));
  detail::launch_kernel(kernel, shape, true, GridDependency{},
                        static_cast<Parameters>(std::forward<Arguments>(arguments))...);
}

template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  return reinterpret_cast<T*>(simt::dynamic_shared_memory());
}

}  // namespace vqlm::cuda
