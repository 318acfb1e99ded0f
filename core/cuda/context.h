// What every CUDA op is given: the stream, what the chip offers, scratch memory and the plans of matrix products.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace vqlm::cuda {

class MatmulPlans;

/// Scratch memory of one op at a time: what an op writes there is gone when the next op begins. It grows with the
/// largest request; growing is stream-ordered, but impossible while a graph is captured (Backend::capture demands that its
/// ops have run before).
class Workspace {
 public:
  explicit Workspace(cudaStream_t stream) : stream_(stream) {}
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// At least `bytes` bytes of device memory, aligned to 256. Throws Error where the device has no more.
  void* get(std::size_t bytes);
  std::size_t bytes() const { return bytes_; }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

struct Context {
  cudaStream_t stream = nullptr;
  int multiprocessors = 0;
  int compute_capability = 0;               // 80, 90, ...
  std::size_t shared_memory_per_block = 0;  // bytes that one block may use, opted in
  Workspace* workspace = nullptr;
  MatmulPlans* plans = nullptr;
};

}  // namespace vqlm::cuda
