// Device and pinned memory are host memory between guards, filled with 0xff (NaN) when allocated and when freed.
// Copies are checked against the table of allocations and behave as CUDA's: deferred where both sides are device or
// pinned memory; a pageable source is read at once, a pageable target makes the call block.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/simt/runtime.h"
#include "tests/simt/sanitizers.h"
#include "tests/simt/streams.h"

namespace simt {
namespace {

constexpr std::size_t alignment = 256;
// AddressSanitizer brings its own, around the exact size.
constexpr std::size_t guard_bytes = address_sanitizer ? 0 : 256;
constexpr unsigned char guard = 0xa5;

std::size_t limit_of_environment() {
  const char* text = std::getenv("SIMT_MEMORY");
  if (text == nullptr) return std::size_t{1} << 30;
  char* suffix = nullptr;
  const std::size_t number = std::strtoull(text, &suffix, 10);
  switch (*suffix) {
    case 'K':
      return number << 10;
    case 'M':
      return number << 20;
    case 'G':
      return number << 30;
    default:
      return number;
  }
}

std::size_t limit(Runtime& r) {
  if (r.memory_limit == 0) r.memory_limit = limit_of_environment();
  return r.memory_limit;
}

cudaError_t allocate(Runtime& r, void** pointer, std::size_t bytes, Memory memory, bool from_pool) {
  if (pointer == nullptr) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (bytes == 0) return from_pool ? cudaErrorInvalidValue : cudaSuccess;
  if (memory == Memory::device && bytes > limit(r) - std::min(r.memory_used, limit(r))) {
    return cudaErrorMemoryAllocation;
  }
  void* base = nullptr;
  if (posix_memalign(&base, alignment, bytes + 2 * guard_bytes) != 0) return cudaErrorMemoryAllocation;
  auto* user = static_cast<unsigned char*>(base) + guard_bytes;
  std::memset(base, guard, guard_bytes);
  std::memset(user, 0xff, bytes);
  std::memset(user + bytes, guard, guard_bytes);
  r.allocations[reinterpret_cast<std::uintptr_t>(user)] = {memory, bytes, from_pool, false};
  if (memory == Memory::device) r.memory_peak = std::max(r.memory_peak, r.memory_used += bytes);
  if (from_pool) r.pool_peak = std::max(r.pool_peak, r.pool_used += bytes);
  *pointer = user;
  return cudaSuccess;
}

void check_guards(std::uintptr_t address, const Allocation& allocation) {
  const auto* user = reinterpret_cast<const unsigned char*>(address);
  for (std::size_t i = 0; i < guard_bytes; ++i) {
    const bool before = user[-1 - static_cast<std::ptrdiff_t>(i)] != guard, after = user[allocation.bytes + i] != guard;
    if (!before && !after) continue;
    std::fprintf(stderr, "simt: written %zu bytes %s an allocation of %zu bytes\n", i + 1,
                 before ? "before" : "past the end of", allocation.bytes);
    std::abort();
  }
}

void release(Runtime& r, void* pointer) {
  const auto found = r.allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  check_guards(found->first, found->second);
  if (found->second.memory == Memory::device) r.memory_used -= found->second.bytes;
  if (found->second.from_pool) r.pool_used -= found->second.bytes;
  std::memset(pointer, 0xff, found->second.bytes);
  std::free(static_cast<unsigned char*>(pointer) - guard_bytes);
  r.allocations.erase(found);
}

cudaError_t free_now(void* pointer, Memory memory) {
  if (pointer == nullptr) return cudaSuccess;
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  const auto found = r.allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == r.allocations.end() || found->second.memory != memory || found->second.freed) {
    return result(cudaErrorInvalidValue);
  }
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  r.run_until(lock, [&r] { return r.all_idle(); });  // as cudaFree does
  release(r, pointer);
  return cudaSuccess;
}

enum class Place { device, pinned, pageable, bad };

/// Where [pointer, pointer + bytes) lies; bad where it leaves an allocation or was freed.
Place place_of(Runtime& r, const void* pointer, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto next = r.allocations.upper_bound(address);
  if (next == r.allocations.begin()) return Place::pageable;
  const auto& [begin, allocation] = *--next;
  if (address >= begin + allocation.bytes) return Place::pageable;
  if (allocation.freed || bytes > begin + allocation.bytes - address) return Place::bad;
  return allocation.memory == Memory::device ? Place::device : Place::pinned;
}

bool legal(Place target, Place source, cudaMemcpyKind kind) {
  if (target == Place::bad || source == Place::bad) return false;
  const bool to_device = target == Place::device, from_device = source == Place::device;
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

/// Blocking calls on the default stream wait for the streams that were not created with cudaStreamNonBlocking.
void wait_for_blocking_streams(Runtime& r, Runtime::Lock& lock) {
  r.run_until(lock, [&r] {
    if (!r.default_stream.queue.empty()) return false;
    for (const CUstream_st& stream : r.streams) {
      if ((stream.flags & cudaStreamNonBlocking) == 0 && !stream.queue.empty()) return false;
    }
    return true;
  });
}

}  // namespace

void set_memory_limit(std::size_t bytes) {
  const Runtime::Lock lock(runtime().mutex);
  runtime().memory_limit = bytes;
}

}  // namespace simt

using simt::Memory;
using simt::Place;
using simt::result;
using simt::runtime;
using simt::Runtime;

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  return result(simt::allocate(r, pointer, bytes, Memory::device, false));
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  return result(simt::allocate(r, pointer, bytes, Memory::pinned, false));
}

cudaError_t cudaFree(void* pointer) {
  return simt::free_now(pointer, Memory::device);
}

cudaError_t cudaFreeHost(void* pointer) {
  return simt::free_now(pointer, Memory::pinned);
}

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  CUstream_st* on = r.find(stream);
  if (on == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (on->capture != nullptr) return result(cudaErrorStreamCaptureUnsupported);  // no memory nodes here
  const cudaError_t status = simt::allocate(r, pointer, bytes, Memory::device, true);
  if (status != cudaErrorMemoryAllocation || r.all_idle()) return result(status);
  r.run_until(lock, [on] { return on->queue.empty(); });  // frees that are queued may make room
  return result(simt::allocate(r, pointer, bytes, Memory::device, true));
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  if (pointer == nullptr) return cudaSuccess;
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* on = r.find(stream);
  if (on == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (on->capture != nullptr) return result(cudaErrorStreamCaptureUnsupported);
  const auto found = r.allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == r.allocations.end() || found->second.memory != Memory::device || found->second.freed) {
    return result(cudaErrorInvalidValue);
  }
  found->second.freed = true;
  const auto give_back = [pointer] {
    const Runtime::Lock relock(runtime().mutex);
    simt::release(runtime(), pointer);
    return true;
  };
  r.append(*on, give_back, on->kernel_last ? simt::Work::kernel : simt::Work::other);  // no work of the device
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  *total = simt::limit(r);
  *free = *total - std::min(*total, r.memory_used);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  CUstream_st* on = r.find(stream);
  if (on == nullptr) return result(cudaErrorInvalidResourceHandle);
  const Place to = simt::place_of(r, target, bytes), from = simt::place_of(r, source, bytes);
  if (!simt::legal(to, from, kind)) return result(cudaErrorInvalidValue);
  const bool pageable = to == Place::pageable || from == Place::pageable;
  if (pageable && on->capture != nullptr) return result(cudaErrorStreamCaptureUnsupported);
  if (from == Place::pageable) {
    const auto* begin = static_cast<const unsigned char*>(source);
    r.append(*on, [target, taken = std::vector<unsigned char>(begin, begin + bytes)] {
      std::memcpy(target, taken.data(), taken.size());
      return true;
    });
  } else {
    r.append(*on, [=] {
      std::memmove(target, source, bytes);
      return true;
    });
  }
  if (to == Place::pageable) r.run_until(lock, [on] { return on->queue.empty(); });
  return cudaSuccess;
}

/// Device memory to device memory, all that is in use.
cudaError_t cudaMemcpy2DAsync(void* target, size_t target_pitch, const void* source, size_t source_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (width > target_pitch || width > source_pitch) return result(cudaErrorInvalidPitchValue);
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* on = r.find(stream);
  if (on == nullptr) return result(cudaErrorInvalidResourceHandle);
  const auto place = [&](const void* begin, size_t pitch) {
    return simt::place_of(r, begin, pitch * (height - 1) + width);
  };
  if (kind != cudaMemcpyDeviceToDevice || place(target, target_pitch) != Place::device ||
      place(source, source_pitch) != Place::device) {
    return result(cudaErrorInvalidValue);
  }
  r.append(*on, [=] {
    for (size_t row = 0; row < height; ++row) {
      std::memcpy(static_cast<char*>(target) + row * target_pitch,
                  static_cast<const char*>(source) + row * source_pitch, width);
    }
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* target, const void* source, size_t bytes, cudaMemcpyKind kind) {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  if (!simt::legal(simt::place_of(r, target, bytes), simt::place_of(r, source, bytes), kind)) {
    return result(cudaErrorInvalidValue);
  }
  simt::wait_for_blocking_streams(r, lock);
  std::memmove(target, source, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  Runtime& r = runtime();
  const Runtime::Lock lock(r.mutex);
  CUstream_st* on = r.find(stream);
  if (on == nullptr) return result(cudaErrorInvalidResourceHandle);
  if (simt::place_of(r, target, bytes) != Place::device) return result(cudaErrorInvalidValue);
  r.append(*on, [=] {
    std::memset(target, value, bytes);
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaMemset(void* target, int value, size_t bytes) {
  Runtime& r = runtime();
  Runtime::Lock lock(r.mutex);
  if (r.capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  if (simt::place_of(r, target, bytes) != Place::device) return result(cudaErrorInvalidValue);
  simt::wait_for_blocking_streams(r, lock);
  std::memset(target, value, bytes);
  return cudaSuccess;
}

}  // extern "C"
