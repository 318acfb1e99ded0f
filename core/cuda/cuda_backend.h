// The CUDA back end's entry points; CMake compiles absent.cpp where it is not built.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"

namespace vqlm {

/// True where the program was built with CUDA.
bool cuda_built();

/// Whether kernels may begin before the one in front of them has ended (dependent_launch.h), where the device can do it.
enum class DependentLaunch { no, yes };

/// Opens GPU `device`. Its memory is the device's default stream-ordered pool, which keeps what it has once taken, or plain
/// blocks where it has no pool. Throws
/// Error where the program has no CUDA, the machine no GPU, the driver is too old, `device` is out of range, or the GPU
/// is older than compute capability 8.0 (bf16 tensor cores, asynchronous copies to shared memory).
std::unique_ptr<Backend> make_cuda_backend(int device, DependentLaunch launch = DependentLaunch::yes);

/// GPUs that this process sees; 0 without CUDA, without a driver, or with CUDA_VISIBLE_DEVICES empty.
int cuda_device_count();

/// Why there is none, as a sentence for people: "no NVIDIA driver here"; empty where there is one.
std::string why_no_cuda_device();

/// Versions as "13.0.0"; "none" where there is none.
struct CudaVersions {
  std::string driver;    // the newest CUDA that the driver serves
  std::string runtime;   // that the program was built with
  std::string cublaslt;  // the library found at run time, or why there is none
};
CudaVersions cuda_versions();

struct CudaDevice {
  int index = 0;
  std::string name;
  std::string pci;             // "0000:1b:00.0"; that of its card where it is a slice of one
  bool mig = false;            // a slice of a card (Multi-Instance GPU)
  bool memory_pools = true;    // stream-ordered memory; some virtual GPUs have none
  int compute_capability = 0;  // 80, 90, ...
  int multiprocessors = 0;
  std::size_t shared_memory_per_block = 0;  // bytes that one block may use, opted in
  std::size_t total_bytes = 0;
  std::vector<bool> peers;  // whether this GPU can read and write GPU i's memory; true for itself
};
/// GPU `device` of cuda_device_count(), without taking memory of it. Throws Error.
CudaDevice cuda_device(int device);

struct CudaMemory {
  std::size_t total = 0;
  std::size_t free = 0;           // for all processes together
  std::size_t pool_reserved = 0;  // this process' memory pool: taken from the device,
  std::size_t pool_used = 0;      // and of that in use
};
/// Makes `device` the thread's current one, which takes some 500 MiB of it where the process had not used it. Throws
/// Error.
CudaMemory cuda_memory(int device);

/// Lets the pool of `device` take memory until it holds `bytes`, so that a run's blocks, asked for one by one, come from one
/// piece and cost the driver nothing. Throws Error where the device has no more.
void reserve_cuda_memory(int device, std::size_t bytes);

}  // namespace vqlm
