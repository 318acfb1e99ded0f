// How wgmma is told where a matrix lies in shared memory (PTX ISA, "Matrix descriptor" of wgmma). Compiled for the GPU and
// for the host executor, which decodes what is made here.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace vqlm::cuda {

/// Which index of an operand is contiguous in memory: k (rows of k), or the other one (m of a, n of b).
enum class Major { k, mn };

/// 16-byte chunks of a row are permuted by the row's number within eight, as bulk copies do with the same mode: address
/// bits 4 to 6 are xored with bits 7 to 9 (bytes_128), 4 and 5 with 7 and 8, 4 with 7. Rows are as wide as the name says.
enum class Swizzle : unsigned { none = 0, bytes_128 = 1, bytes_64 = 2, bytes_32 = 3 };

using MatrixDescriptor = std::uint64_t;

/// Addresses and offsets in bytes, multiples of 16 below 256 KiB. Eight rows of a swizzle's width are an atom; atoms lie
/// back to back or `stride` apart.
///   Major::k, swizzled    stride: from 8 rows (m or n) to the next; leading is not used. Another 16 of k: start + 32
///   Major::mn, swizzled   leading: from one swizzle's width of m or n to the next; stride: from 8 rows of k to the next
///   not swizzled          atoms are 8 rows of 16 bytes; Major::k: leading along k, stride along m or n; Major::mn: the
///                         other way round
__host__ __device__ constexpr MatrixDescriptor matrix_descriptor(unsigned start, unsigned leading, unsigned stride,
                                                                 Swizzle swizzle) {
  const auto field = [](unsigned bytes) { return static_cast<std::uint64_t>(bytes / 16 & 0x3fff); };
  return field(start) | field(leading) << 16 | field(stride) << 32 | static_cast<std::uint64_t>(swizzle) << 62;
}

}  // namespace vqlm::cuda
