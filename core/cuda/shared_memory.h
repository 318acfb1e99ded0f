// When a launch asks for its shared memory.
#pragma once

#include <cstddef>

namespace vqlm::cuda {

/// Dynamic shared memory up to here needs no permission on any architecture: 48 KiB for static and dynamic together, less
/// the 8 KiB that are the most a kernel with dynamic memory may declare statically.
inline constexpr std::size_t shared_bytes_without_permission = (48 - 8) * 1024;

}  // namespace vqlm::cuda
