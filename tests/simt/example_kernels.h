// Kernels that use every part of the executor, for its own tests.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace vqlm::cuda {

/// sums (rows) = row sums of x (rows, columns), by block_sum.
void row_sums(cudaStream_t stream, float* sums, const float* x, int rows, int columns);

/// Each block's part of `out` is its part of `in` in reverse, by way of dynamic shared memory.
void reverse_blocks(cudaStream_t stream, int* out, const int* in, int blocks, int threads);

/// c (m, n) = a (m, k) b (n, k)^T with tensor cores: m, n multiples of 16 and 8, k of 16.
void tile_matmul(cudaStream_t stream, float* c, const __nv_bfloat16* a, const __nv_bfloat16* b, int m, int n, int k);

/// counts[id] += 1 for each of ids.
void histogram(cudaStream_t stream, int* counts, const int* ids, std::int64_t n);

/// What ldmatrix_x4, ldmatrix_x4_trans (32, 8) and ldmatrix_x2_trans (32, 4) give each lane of four stored 8x8 matrices.
void load_matrices(cudaStream_t stream, float* plain, float* transposed, float* two, const __nv_bfloat16* matrices);

/// Every shuffle and vote of one warp, (32, shuffle_results); executor_test.cpp says what each should be.
constexpr int shuffle_results = 11;
void shuffles(cudaStream_t stream, int* out);

}  // namespace vqlm::cuda
