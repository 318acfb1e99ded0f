// Devices, their properties and pools, versions, errors.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tests/simt/executor.h"
#include "tests/simt/runtime.h"
#include "tests/simt/streams.h"

namespace simt {
namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

constexpr int multiprocessors = 8;    // few, so that kernels with a grid of that size loop
constexpr int cache_bytes = 1 << 20;  // small, so that what fills it takes little time

/// SIMT_DEVICES (4 unless given), less where CUDA_VISIBLE_DEVICES lists fewer.
int device_count() {
  const char* devices = std::getenv("SIMT_DEVICES");
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  int count = devices == nullptr ? 4 : std::atoi(devices);
  if (visible != nullptr) {
    const auto listed = *visible == '\0' ? 0 : 1 + std::count(visible, visible + std::strlen(visible), ',');
    count = std::min(count, static_cast<int>(listed));
  }
  return count;
}

/// SIMT_PCI_BASE (0 unless given): GPUs that a launcher hands to one rank of a node are not those of the next rank.
int pci_bus(int device) {
  const char* base = std::getenv("SIMT_PCI_BASE");
  return (base == nullptr ? 0 : std::atoi(base)) + device + 1;
}

/// SIMT_MEMORY_POOLS=0: a device without stream-ordered memory.
bool memory_pools() {
  const char* text = std::getenv("SIMT_MEMORY_POOLS");
  return text == nullptr || std::atoi(text) != 0;
}

bool exists(int device) {
  return device >= 0 && device < device_count();
}

}  // namespace

int compute_capability() {
  const char* text = std::getenv("SIMT_COMPUTE_CAPABILITY");
  return text == nullptr ? 80 : std::atoi(text);
}

std::size_t max_shared_bytes() {
  return static_cast<std::size_t>(compute_capability() >= 90 ? 227 : 163) * 1024;
}

cudaError_t result(cudaError_t status) {
  if (status != cudaSuccess) last_error = status;
  return status;
}

}  // namespace simt

// CUDA declares the type and leaves it to its runtime. All devices share the one pool: a process uses one of them.
struct CUmemPoolHandle_st {
  unsigned long long release_threshold = 0;
};

using simt::result;
using simt::runtime;
using simt::Runtime;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  const int devices = simt::device_count();
  if (devices == 0) return result(cudaErrorNoDevice);
  *count = devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (!simt::exists(device)) return result(simt::device_count() == 0 ? cudaErrorNoDevice : cudaErrorInvalidDevice);
  simt::current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  if (simt::device_count() == 0) return result(cudaErrorNoDevice);
  *device = simt::current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!simt::exists(device)) return result(cudaErrorInvalidDevice);
  *properties = {};
  const char* name = std::getenv("SIMT_DEVICE_NAME");
  std::snprintf(properties->name, sizeof(properties->name), "%s", name == nullptr ? "host executor" : name);
  size_t free = 0;
  static_cast<void>(cudaMemGetInfo(&free, &properties->totalGlobalMem));
  properties->major = simt::compute_capability() / 10;
  properties->minor = simt::compute_capability() % 10;
  properties->multiProcessorCount = simt::multiprocessors;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->sharedMemPerBlockOptin = simt::max_shared_bytes();
  properties->l2CacheSize = simt::cache_bytes;
  properties->memoryPoolsSupported = simt::memory_pools() ? 1 : 0;
  properties->pciBusID = simt::pci_bus(device);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!simt::exists(device)) return result(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrL2CacheSize:
      *value = simt::cache_bytes;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = simt::multiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = simt::compute_capability() / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = simt::compute_capability() % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(simt::max_shared_bytes());
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = 48 * 1024;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
      *value = simt::memory_pools() ? 1 : 0;
      return cudaSuccess;
    case cudaDevAttrUnifiedAddressing:
      *value = 1;
      return cudaSuccess;
    default:
      return result(cudaErrorInvalidValue);
  }
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  if (!simt::exists(device)) return result(cudaErrorInvalidDevice);
  std::snprintf(text, static_cast<size_t>(length), "0000:%02x:00.0", static_cast<unsigned>(simt::pci_bus(device)));
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  if (!simt::exists(device) || !simt::exists(peer)) return result(cudaErrorInvalidDevice);
  *can = device != peer;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = simt::device_count() == 0 ? 0 : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

// Kernels are as if compiled for the device.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  if (kernel == nullptr) return result(cudaErrorInvalidDeviceFunction);
  *attributes = {};
  attributes->ptxVersion = attributes->binaryVersion = simt::compute_capability();
  attributes->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  if (!simt::exists(device)) return result(cudaErrorInvalidDevice);
  if (!simt::memory_pools()) return result(cudaErrorNotSupported);
  static CUmemPoolHandle_st only;
  *pool = &only;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  const auto number = *static_cast<unsigned long long*>(value);
  if (attribute == cudaMemPoolAttrReleaseThreshold) {
    pool->release_threshold = number;
  } else if ((attribute == cudaMemPoolAttrUsedMemHigh || attribute == cudaMemPoolAttrReservedMemHigh) && number == 0) {
    r.pool_peak = r.pool_used;
  } else {
    return result(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  auto& number = *static_cast<unsigned long long*>(value);
  switch (attribute) {
    case cudaMemPoolAttrReleaseThreshold:
      number = pool->release_threshold;
      return cudaSuccess;
    case cudaMemPoolAttrUsedMemCurrent:
    case cudaMemPoolAttrReservedMemCurrent:
      number = r.pool_used;
      return cudaSuccess;
    case cudaMemPoolAttrUsedMemHigh:
    case cudaMemPoolAttrReservedMemHigh:
      number = r.pool_peak;
      return cudaSuccess;
    default:
      return result(cudaErrorInvalidValue);
  }
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
  return cudaSuccess;  // nothing is kept
}

cudaError_t cudaGetLastError() {
  return std::exchange(simt::last_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError() {
  return simt::last_error;
}

}  // extern "C"
