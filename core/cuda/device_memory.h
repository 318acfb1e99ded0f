// The device's memory: one stream-ordered pool with an account of what its blocks are for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <mutex>

#include "core/backend.h"

namespace vqlm::cuda {

class DeviceMemory {
 public:
  /// Of the current device; blocks come and go in `stream`'s order. From now on the device's default pool keeps what it
  /// takes, so that a step's blocks cost no call to the driver once the first step has run.
  DeviceMemory(int device, cudaStream_t stream);

  /// Throws Error naming what was asked for, what is free, what uses the rest and which settings shrink it.
  void* allocate(std::size_t bytes, MemoryUse use);
  void free(void* data, std::size_t bytes, MemoryUse use) noexcept;
  Backend::MemoryAccount account() const;

 private:
  [[noreturn]] void refuse(std::size_t bytes, MemoryUse use) const;

  int device_;
  cudaStream_t stream_;
  cudaMemPool_t pool_ = nullptr;
  mutable std::mutex mutex_;  // buffers may be freed by another thread (checkpoint writer)
  Backend::MemoryAccount account_;
};

}  // namespace vqlm::cuda
