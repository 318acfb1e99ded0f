// When a launch asks for its shared memory.
#pragma once

#include <cstddef>

namespace vqlm::cuda {

/// Dynamic shared memory up to here needs no permission on any architecture: 48 KiB for static and dynamic together, less
/// the most that a kernel here declares statically (column_sums_kernel's and count_kernel's 8 KiB).
inline constexpr std::size_t shared_bytes_without_permission = (48 - 8) * 1024;

}  // namespace vqlm::cuda
