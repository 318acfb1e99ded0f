// What every CUDA op is given: the stream, what the chip offers, scratch memory and the plans of matrix products.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

#include "core/buffer.h"
#include "core/cuda/dependent_launch.h"

namespace vqlm {
class Backend;
}

namespace vqlm::cuda {

class MatmulPlans;

/// Scratch memory of one op at a time: what an op writes there is gone when the next op begins. It grows to the largest
/// request, which is stream-ordered, but impossible while a graph is captured (Backend::capture demands that its ops have
/// run before). A block that a graph has seen stays until the end, because replays use it.
class Workspace {
 public:
  explicit Workspace(Backend& owner) : owner_(owner) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// At least `bytes` bytes of device memory, aligned to 256. An op calls it once. Throws Error where the device has no
  /// more.
  void* get(std::size_t bytes);

 private:
  Backend& owner_;
  Buffer block_;
  bool in_graph_ = false;
  std::vector<Buffer> kept_;
};

struct Context {
  LaunchStream stream;
  int multiprocessors = 0;
  int compute_capability = 0;               // 80, 90, ...
  std::size_t shared_memory_per_block = 0;  // bytes that one block may use, opted in
  Workspace* workspace = nullptr;
  MatmulPlans* plans = nullptr;
};

}  // namespace vqlm::cuda
