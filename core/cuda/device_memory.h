// The device's memory with an account of what its blocks are for: from one stream-ordered pool, or block by block where a
// device has no pools (some virtual GPUs).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>

#include "core/backend.h"

namespace vqlm::cuda {

class DeviceMemory {
 public:
  /// Of the current device; blocks come and go in `stream`'s order. From now on the device's default pool keeps what it
  /// takes, so that a step's blocks cost no call to the driver once the first step has run. Without a pool each block is
  /// one, and one that goes makes the host wait for the device.
  DeviceMemory(int device, cudaStream_t stream);

  /// Throws Error naming what was asked for, what is free, what uses the rest and which settings shrink it.
  void* allocate(std::size_t bytes, MemoryUse use);
  void free(void* data, std::size_t bytes, MemoryUse use) noexcept;
  Backend::MemoryAccount account() const;

 private:
  cudaError_t take(void** data, std::size_t bytes);
  [[noreturn]] void refuse(std::size_t bytes, MemoryUse use) const;

  int device_;
  cudaStream_t stream_;
  cudaMemPool_t pool_ = nullptr;  // null where the device has none
  mutable std::mutex mutex_;      // of the account: buffers may go on another thread, but never while this one captures
  Backend::MemoryAccount account_;
};

}  // namespace vqlm::cuda
