// Pieces that Hopper's attention kernels share: tiles of a head in shared memory as bulk copies bring them, their products
// by a warpgroup, sums that become operands. A tile of R rows lies in panels of 64 columns: (head_dim / 64, R, 64), rows of
// 128 bytes swizzled (Swizzle::bytes_128), R a multiple of 8 and the tile at a multiple of 1024 bytes.
#pragma once

#include <cstdint>

#include "core/cuda/attention_tiles.h"
#include "core/cuda/tensor_core_sm90.h"
#include "core/cuda/tensor_maps.h"

namespace vqlm::cuda::attention {

constexpr int warpgroup_threads = 128;
constexpr int warpgroup_rows = 64;
constexpr int panel_columns = tensor_map_columns;
constexpr unsigned atom_bytes = 8 * 128;

/// For products: rows from `at` on, the first of eight, of a tile of `rows` rows.
template <int rows>
__device__ __forceinline__ MatrixDescriptor tile_descriptor(const Bf16* at) {
  return matrix_descriptor(shared_address(at), rows * panel_columns * sizeof(Bf16), atom_bytes, Swizzle::bytes_128);
}

/// Starts the copies of a tile of a head, whose columns begin at `column`, by a map of boxes of box_rows rows; `full` was told
/// of their bytes before.
template <int rows, int box_rows, int head_dim>
__device__ __forceinline__ void load_head_tile(Bf16* to, const CUtensorMap& from, Mbarrier* full, int column, int begin,
                                               int b) {
#pragma unroll
  for (int p = 0; p < head_dim; p += panel_columns) {
#pragma unroll
    for (int r = 0; r < rows; r += box_rows) {
      bulk_load(to + p * rows + r * panel_columns, from, full, {column + p, begin + r, b});
    }
  }
}

/// Issues c (64, 8 N) = a b^T; a and b are rows of head_dim in tiles of a_rows and b_rows rows.
template <int head_dim, int a_rows, int b_rows, int N>
__device__ __forceinline__ void issue_transposed(float (&c)[N][4], MatrixDescriptor a, MatrixDescriptor b) {
#pragma unroll
  for (int i = 0; i < head_dim; i += 16) {
    const int panel = i / panel_columns * panel_columns, within = i % panel_columns;
    constexpr int chunk = 16 / sizeof(Bf16);
    wgmma<Major::k>(c, a + (panel * a_rows + within) / chunk, b + (panel * b_rows + within) / chunk,
                    i == 0 ? Sums::begin : Sums::add);
  }
}

/// Issues c (64, 8 N) += p b; p (64, 16 K) in registers, b the 16 K rows of a tile.
template <int N, int K>
__device__ __forceinline__ void issue_product(float (&c)[N][4], const unsigned (&p)[K][4], MatrixDescriptor b) {
#pragma unroll
  for (int i = 0; i < K; ++i) wgmma<Major::mn>(c, p[i], b + i * 2 * atom_bytes / 16, Sums::add);
}

/// Sums as they lie in the registers are, rounded and packed, operand a of the next product.
template <int K>
__device__ __forceinline__ void pack_operand(unsigned (&p)[K][4], const float (&c)[2 * K][4]) {
#pragma unroll
  for (int i = 0; i < K; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r) p[i][r] = pack_bf16(c[2 * i + r / 2][r % 2 * 2], c[2 * i + r / 2][r % 2 * 2 + 1]);
  }
}

// The masks of attention_tiles.h for a warp's 16 rows. What is the lane's own stands on one side of each comparison, the
// other is a constant: terms of every column, which a loop's compiler keeps in registers, would spill here.

/// Scores whose key lies behind the query become -infinity; lead: as there.
template <KeyAxis key_axis, int N>
__device__ __forceinline__ void mask_future(float (&scores)[N][4], int lead) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, slope = lane / 4 - 2 * (lane % 4);
  const int edge = key_axis == KeyAxis::columns ? lead + slope : lead - slope;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int ahead = 8 * n + e % 2 - 8 * (e / 2);
      if ((key_axis == KeyAxis::columns ? ahead : -ahead) > edge) scores[n][e] = -INFINITY;
    }
  }
}

/// A row sees columns from limits[half] on, or below it, counted in the sequence.
enum class Seen { from_limit, below_limit };
template <Seen seen, int N>
__device__ __forceinline__ void mask_columns(float (&scores)[N][4], const int (&limits)[2], int tile_begin) {
  const int begin = tile_begin + 2 * (static_cast<int>(threadIdx.x) % 4);
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int column = 8 * n + e % 2, limit = limits[e / 2] - begin;
      if (seen == Seen::from_limit ? column < limit : column >= limit) scores[n][e] = -INFINITY;
    }
  }
}

template <int N>
__device__ __forceinline__ void scale_rows(float (&c)[N][4], float upper, float lower) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) c[n][e] *= e < 2 ? upper : lower;
  }
}

/// Writes a warp's 16 rows, rounded to bf16, to rows from `first_row` on by bulk copies, which leave out those behind the
/// tensor's end. They pass through `tile`, the warp's rows in the first panel of a tile of `rows` rows that no product reads
/// any more. The map's boxes have 16 rows. Shared memory is free again when bulk_store_wait<0>() has returned.
template <int rows, int head_dim>
__device__ __forceinline__ void store_warp_rows(const CUtensorMap& to, Bf16* tile, const float (&c)[head_dim / 8][4],
                                                int column, int first_row, int b) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int n = 0; n < head_dim / 8; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
      Bf16* const chunk = tile + n / 8 * rows * panel_columns + row * panel_columns + (n % 8 ^ row % 8) * 8;
      *reinterpret_cast<__nv_bfloat162*>(chunk + 2 * (lane % 4)) =
          __floats2bfloat162_rn(c[n][2 * half], c[n][2 * half + 1]);
    }
  }
  fence_proxy_async();
  __syncwarp();
  if (lane != 0) return;
#pragma unroll
  for (int p = 0; p < head_dim / panel_columns; ++p) {
    bulk_store(to, tile + p * rows * panel_columns, {column + p * panel_columns, first_row, b});
  }
  bulk_store_commit();
}

/// A call's tensors (B, T, columns) as maps of boxes of `box_rows` rows.
inline CUtensorMap sequence_map(const Tensor& x, const AttentionShape& shape, std::int64_t columns, int box_rows) {
  return tensor_map_bf16(x.data(), columns, shape.seq_len, shape.batch, columns, shape.seq_len * columns, box_rows);
}

}  // namespace vqlm::cuda::attention
