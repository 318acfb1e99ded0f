#include "core/cuda/devices.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <spdlog/fmt/fmt.h>

#include <array>
#include <cstdlib>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/cuda_check.h"
#include "core/cuda/handles.h"
#include "core/error.h"

namespace vqlm {
namespace cuda {
namespace {

std::string dotted(int version) {
  return version == 0 ? "none" : fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  cuda_check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

std::size_t pool_attribute(cudaMemPool_t pool, cudaMemPoolAttr which) {
  unsigned long long value = 0;  // the type that the runtime asks for
  cuda_check(cudaMemPoolGetAttribute(pool, which, &value), "cudaMemPoolGetAttribute");
  return value;
}

}  // namespace

void require_device(int device) {
  if (const std::string why = why_no_cuda_device(); !why.empty()) {
    throw Error(fmt::format("cuda: {}; use run.device = \"cpu\"", why));
  }
  const int count = cuda_device_count();
  if (device < 0 || device >= count) {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    throw Error(fmt::format(
        "cuda: GPU {} asked for, but this process sees {} (numbers from 0; CUDA_VISIBLE_DEVICES {}); start "
        "at most {} rank{} on this machine, or let every rank see all its GPUs",
        device, count, visible == nullptr ? "is not set" : fmt::format("= {}", visible), count, count == 1 ? "" : "s"));
  }
  const int major = attribute(cudaDevAttrComputeCapabilityMajor, device);
  const int minor = attribute(cudaDevAttrComputeCapabilityMinor, device);
  if (major < 8) {
    throw Error(fmt::format(
        "cuda: GPU {} has compute capability {}.{}, but bf16 tensor cores need 8.0 (A100 and later); choose "
        "another by CUDA_VISIBLE_DEVICES, or use run.device = \"cpu\"",
        device, major, minor));
  }
}

bool has_memory_pools(int device) {
  return attribute(cudaDevAttrMemoryPoolsSupported, device) != 0;
}

std::size_t cache_bytes(int device) {
  return static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize, device));
}

std::string human_bytes(std::size_t bytes) {
  constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.3g} {}", value, units[unit]);
}

}  // namespace cuda

bool cuda_built() {
  return true;
}

int cuda_device_count() {
  int count = 0;  // stays unwritten where there is no driver
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return 0;
  }
  return count;
}

std::string why_no_cuda_device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) static_cast<void>(cudaGetLastError());
  if (status == cudaSuccess && count > 0) return "";
  int driver = 0;
  cuda::cuda_check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  if (status == cudaErrorInsufficientDriver && driver > 0) {
    return fmt::format("the NVIDIA driver serves CUDA {}, but vqlm was built with {}: update the driver",
                       cuda::dotted(driver), cuda::dotted(CUDART_VERSION));
  }
  if (status == cudaErrorInsufficientDriver) return "no NVIDIA driver here";
  if (status != cudaSuccess && status != cudaErrorNoDevice) {
    return fmt::format("cudaGetDeviceCount failed with {} ({}); see nvidia-smi", cudaGetErrorName(status),
                       cudaGetErrorString(status));
  }
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible == nullptr ? "an NVIDIA driver, but no GPU here"
                            : fmt::format("no GPU is visible (CUDA_VISIBLE_DEVICES={})", visible);
}

CudaVersions cuda_versions() {
  int driver = 0, runtime = 0;
  cuda::cuda_check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  cuda::cuda_check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  const auto cublaslt = [] {
    try {
      const std::size_t version = cublasLtGetVersion();
      return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
    } catch (const Error& error) {  // vqlm doctor goes on with what else there is to tell
      return std::string(error.what());
    }
  };
  return {cuda::dotted(driver), cuda::dotted(runtime), cublaslt()};
}

CudaDevice cuda_device(int device) {
  using cuda::cuda_check;
  CudaDevice found;
  found.index = device;
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  found.name = properties.name;
  found.pci =
      fmt::format("{:04x}:{:02x}:{:02x}.0", properties.pciDomainID, properties.pciBusID, properties.pciDeviceID);
  found.mig = found.name.find(" MIG ") != std::string::npos;
  found.memory_pools = cuda::has_memory_pools(device);
  found.compute_capability = 10 * properties.major + properties.minor;
  found.shared_memory_per_block = properties.sharedMemPerBlockOptin;
  found.multiprocessors = properties.multiProcessorCount;
  found.total_bytes = properties.totalGlobalMem;
  const int count = cuda_device_count();
  for (int peer = 0; peer < count; ++peer) {
    int reachable = 1;
    if (peer != device) cuda_check(cudaDeviceCanAccessPeer(&reachable, device, peer), "cudaDeviceCanAccessPeer");
    found.peers.push_back(reachable != 0);
  }
  return found;
}

CudaMemory cuda_memory(int device) {
  using cuda::cuda_check, cuda::pool_attribute;
  cuda_check(cudaSetDevice(device), "cudaSetDevice");
  CudaMemory memory;
  cuda_check(cudaMemGetInfo(&memory.free, &memory.total), "cudaMemGetInfo");
  if (!cuda::has_memory_pools(device)) return memory;
  cudaMemPool_t pool = nullptr;
  cuda_check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
  memory.pool_reserved = pool_attribute(pool, cudaMemPoolAttrReservedMemCurrent);
  memory.pool_used = pool_attribute(pool, cudaMemPoolAttrUsedMemCurrent);
  return memory;
}

void reserve_cuda_memory(int device, std::size_t bytes) {
  using cuda::cuda_check;
  if (!cuda::has_memory_pools(device)) return;
  const CudaMemory now = cuda_memory(device);
  if (bytes <= now.pool_used || now.pool_reserved >= bytes) return;
  const cuda::DeviceStream stream;
  void* block = nullptr;
  cuda_check(cudaMallocAsync(&block, bytes - now.pool_used, stream.get()), "cudaMallocAsync");
  cuda_check(cudaFreeAsync(block, stream.get()), "cudaFreeAsync");
  cuda_check(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
}

}  // namespace vqlm
