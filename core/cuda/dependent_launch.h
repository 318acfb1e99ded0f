// Which kernels may begin before the one in front of them in the stream has ended (programmatic dependent launch, CUDA C++
// Programming Guide): their launch and their blocks' start then hide behind its end. launch.h's GridDependency is the kernels'
// side.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>

namespace vqlm::cuda {

/// What one stream's next launch may do. A kernel is launched as a dependent where that is allowed, it promises to wait, and
/// what stands before it in the stream is a kernel: behind a copy, memory given back, another stream's event or a graph the
/// launch is an ordinary one, whose order needs nobody's promise. Products of cuBLASLt are kernels, of which nothing is told
/// here: the first own kernel after a copy is launched in the ordinary way though there was a product between.
class DependentLaunches {
 public:
  void allow(bool allowed) { allowed_ = allowed; }
  /// What was just enqueued on the stream was no kernel, or waits for more than this stream.
  void behind_other_work() { behind_kernel_.store(false, std::memory_order_relaxed); }
  /// For the kernel that is launched now: whether as a dependent. `promises`: it has a GridDependency.
  bool next(bool promises) {
    const bool behind_kernel = behind_kernel_.exchange(true, std::memory_order_relaxed);
    return allowed_ && promises && behind_kernel;
  }

 private:
  bool allowed_ = false;
  std::atomic<bool> behind_kernel_ = false;  // buffers are given back by any thread
};

/// A stream, and what its launches may do; of a plain stream all are ordinary.
struct LaunchStream {
  cudaStream_t handle = nullptr;
  DependentLaunches* launches = nullptr;  // not owned

  LaunchStream(cudaStream_t stream = nullptr, DependentLaunches* of_stream = nullptr)
      : handle(stream), launches(of_stream) {}
  operator cudaStream_t() const { return handle; }
  bool next_is_dependent(bool promises) const { return launches != nullptr && launches->next(promises); }
  void behind_other_work() const {
    if (launches != nullptr) launches->behind_other_work();
  }
};

/// Whether the current device can: compute capability 9.0, kernels that were compiled for it (those compiled for less do not
/// wait), a runtime and a driver of CUDA 12.3, from which on captured dependent launches are programmatic edges of the graph.
/// Throws Error.
bool can_launch_dependents(int compute_capability);

}  // namespace vqlm::cuda
