#include "core/cuda/device_memory.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>

#include "core/cuda/cuda_check.h"
#include "core/cuda/devices.h"

namespace vqlm::cuda {
namespace {

constexpr std::array<std::string_view, memory_use_count> use_names{"parameters", "gradients", "optimizer",
                                                                   "activations", "workspace"};

std::string_view name_of(MemoryUse use) {
  return use_names[static_cast<std::size_t>(use)];
}

}  // namespace

DeviceMemory::DeviceMemory(int device, cudaStream_t stream) : device_(device), stream_(stream) {
  if (!has_memory_pools(device)) return;
  cuda_check(cudaDeviceGetDefaultMemPool(&pool_, device), "cudaDeviceGetDefaultMemPool");
  // By default the pool hands everything unused back to the driver at each synchronisation.
  auto keep_all = std::numeric_limits<unsigned long long>::max();
  cuda_check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep_all), "cudaMemPoolSetAttribute");
}

cudaError_t DeviceMemory::take(void** data, std::size_t bytes) {
  return pool_ == nullptr ? cudaMalloc(data, bytes) : cudaMallocAsync(data, bytes, stream_);
}

void* DeviceMemory::allocate(std::size_t bytes, MemoryUse use) {
  void* data = nullptr;
  const std::size_t asked = std::max<std::size_t>(bytes, 1);
  cudaError_t status = take(&data, asked);
  if (status == cudaErrorMemoryAllocation) {
    // Once more with all that is freed or kept in pieces given back.
    static_cast<void>(cudaGetLastError());
    cuda_check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    if (pool_ != nullptr) cuda_check(cudaMemPoolTrimTo(pool_, 0), "cudaMemPoolTrimTo");
    status = take(&data, asked);
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      refuse(bytes, use);
    }
  }
  cuda_check(status, pool_ == nullptr ? "cudaMalloc" : "cudaMallocAsync");
  const std::lock_guard lock(mutex_);
  std::size_t& used = account_.in_use[static_cast<std::size_t>(use)];
  std::size_t& peak = account_.peak[static_cast<std::size_t>(use)];
  used += bytes;
  peak = std::max(peak, used);
  const std::size_t total = std::accumulate(account_.in_use.begin(), account_.in_use.end(), std::size_t{0});
  account_.peak_total = std::max(account_.peak_total, total);
  return data;
}

void DeviceMemory::free(void* data, std::size_t bytes, MemoryUse use) noexcept {
  if (pool_ == nullptr) {
    cuda_log_failure(cudaFree(data), "cudaFree");
  } else {
    cuda_log_failure(cudaFreeAsync(data, stream_), "cudaFreeAsync");
  }
  const std::lock_guard lock(mutex_);
  account_.in_use[static_cast<std::size_t>(use)] -= bytes;
}

Backend::MemoryAccount DeviceMemory::account() const {
  const std::lock_guard lock(mutex_);
  return account_;
}

void DeviceMemory::refuse(std::size_t bytes, MemoryUse use) const {
  std::size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const Backend::MemoryAccount now = account();
  std::string in_use;
  for (std::size_t i = 0; i < use_names.size(); ++i) {
    if (now.in_use[i] > 0) in_use += fmt::format(", {} {}", use_names[i], human_bytes(now.in_use[i]));
  }
  const std::size_t ours = std::accumulate(now.in_use.begin(), now.in_use.end(), std::size_t{0});
  throw Error(
      fmt::format("cuda:{}: out of device memory: {} of {} asked for, {} of {} free; in use here: {}{}; smaller "
                  "train.micro_batch, data.seq_len or model, larger parallel.tensor, or head.kind = \"vq\" needs less",
                  device_, human_bytes(bytes), name_of(use), human_bytes(free), human_bytes(total), human_bytes(ours),
                  in_use.empty() ? "" : " (" + in_use.substr(2) + ")"));
}

}  // namespace vqlm::cuda
