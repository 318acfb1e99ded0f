// Which GPUs there are, and whether they will do.
#pragma once

#include <cstddef>
#include <string>

namespace vqlm::cuda {

/// Throws Error, with what is wrong and the way out, unless GPU `device` exists and has compute capability 8.0 or higher.
void require_device(int device);

/// Whether GPU `device` has stream-ordered memory (cudaMallocAsync).
bool has_memory_pools(int device);

/// "1.5 GiB": three digits and a unit.
std::string human_bytes(std::size_t bytes);

/// Bytes of the cache that the device's multiprocessors share. Throws Error.
std::size_t cache_bytes(int device);

}  // namespace vqlm::cuda
