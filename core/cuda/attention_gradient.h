// Pieces of attention_backward.cu: how its kernels cut their work, what backward keeps of each query, and the step
// from scores to their gradient.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/cuda/attention_tiles.h"

namespace vqlm::cuda::attention {

/// How a kernel cuts its work: `warps` warps own 16 * row_tiles rows each (keys or queries) and hold their gradients
/// in registers; tiles of `columns` of the other kind stream past in two stages.
template <int warp_count, int row_tile_count, int column_count>
struct Tiling {
  static constexpr int threads = warp_count * warp_size;
  static constexpr int row_tiles = row_tile_count;
  static constexpr int warp_rows = 16 * row_tiles;
  static constexpr int rows = warp_count * warp_rows;
  static constexpr int columns = column_count;
};

template <int head_dim>
struct KeyTiling;
template <>
struct KeyTiling<32> : Tiling<4, 2, 32> {};
template <>
struct KeyTiling<64> : Tiling<4, 2, 32> {};
template <>
struct KeyTiling<128> : Tiling<4, 1, 64> {};

template <int head_dim>
struct QueryTiling;
template <>
struct QueryTiling<32> : Tiling<4, 2, 64> {};
template <>
struct QueryTiling<64> : Tiling<4, 2, 64> {};
template <>
struct QueryTiling<128> : Tiling<4, 2, 32> {};

/// What backward needs of a query, one a row in (batch, heads, padded_len): p = 2^(scale_log2 * score - lse_log2),
/// dscore = p (dp - delta). Rows from seq_len on hold infinity and 0, so that their p and dscore are 0.
struct alignas(8) QueryConstants {
  float lse_log2;
  float delta;  // sum_i dout_i out_i
};

/// Rows are padded to whole query tiles, which also keeps cp_async_16 aligned.
constexpr int row_padding = 128;
__host__ __device__ constexpr std::int64_t padded_len(std::int64_t seq_len) {
  return ceil_div<std::int64_t>(seq_len, row_padding) * row_padding;
}

/// Shared memory of a block: rows of two kinds, columns of two kinds in two stages (and their constants).
template <int head_dim, class Tiles>
constexpr std::size_t shared_bytes = (2 * Tiles::rows + 4 * Tiles::columns) * head_dim * sizeof(Bf16) +
                                     2 * Tiles::columns * sizeof(QueryConstants);

/// scores (keys, queries) and dscores = dp (keys, queries) become p and the gradient of the scaled scores; a query is
/// a column.
template <int M, int N>
__device__ __forceinline__ void gradient_of_columns(float (&scores)[M][N][4], float (&dscores)[M][N][4],
                                                    const QueryConstants* constants, float scale_log2) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    // Two queries of 8 bytes: one read of 16.
    const float4 both = *reinterpret_cast<const float4*>(constants + 8 * n + 2 * (lane % 4));
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float lse_log2 = e % 2 == 0 ? both.x : both.z, delta = e % 2 == 0 ? both.y : both.w;
        scores[m][n][e] = exp2_approx(fmaf(scores[m][n][e], scale_log2, -lse_log2));
        dscores[m][n][e] = scores[m][n][e] * (dscores[m][n][e] - delta);
      }
    }
  }
}

/// The same where a query is a row: scores, dscores (queries, keys); constants of this lane's rows 16 m + 8 half +
/// lane / 4.
template <int M, int N>
__device__ __forceinline__ void gradient_of_rows(float (&scores)[M][N][4], float (&dscores)[M][N][4],
                                                 const QueryConstants (&constants)[M][2], float scale_log2) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const QueryConstants& query = constants[m][e / 2];
        const float p = exp2_approx(fmaf(scores[m][n][e], scale_log2, -query.lse_log2));
        dscores[m][n][e] = p * (dscores[m][n][e] - query.delta);
      }
    }
  }
}

}  // namespace vqlm::cuda::attention
