// Tensors as bulk copies see them (CUDA Driver API, cuTensorMapEncodeTiled).
#pragma once

#include <cuda.h>

#include <cstdint>

namespace vqlm::cuda {

/// A map of bf16 (outer, rows, columns), contiguous columns, rows `row_stride` and outers `outer_stride` elements apart, for
/// copies of boxes of `box_rows` rows and 64 columns, whose rows of 128 bytes are swizzled in shared memory
/// (Swizzle::bytes_128). `data` and strides: multiples of 16 bytes. Positions are {column, row, outer}. Throws Error where
/// CUDA refuses.
CUtensorMap tensor_map_bf16(const void* data, std::int64_t columns, std::int64_t rows, std::int64_t outer,
                            std::int64_t row_stride, std::int64_t outer_stride, int box_rows);

/// Columns of such a box.
inline constexpr int tensor_map_columns = 64;

}  // namespace vqlm::cuda
