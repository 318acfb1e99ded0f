// Pieces that the attention kernels share: tiles of a head in shared memory, their products by tensor cores with
// accumulators in registers, the causal mask. Register layouts are those of core/cuda/tensor_core.h: in an
// accumulator c[m][n][e] of a warp, lane l holds row 16 m + l / 4 + 8 (e / 2) and column 8 n + 2 (l % 4) + e % 2.
#pragma once

#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "core/cuda/packs.h"
#include "core/cuda/tensor_core.h"
#include "core/ops/attention.h"

namespace vqlm::cuda::attention {

using Bf16 = __nv_bfloat16;

constexpr float log2_e = 1.4426950408889634f;
constexpr float ln_2 = 0.6931471805599453f;

/// Sizes and strides of one call; element (t, i) of a head is at head + t * stride + i.
struct Layout {
  explicit Layout(const AttentionShape& shape, const Tensor& of_documents = {})
      : seq_len(static_cast<int>(shape.seq_len)),
        heads(shape.heads),
        kv_heads(shape.kv_heads),
        row(shape.row()),
        out_row(static_cast<std::int64_t>(shape.heads) * shape.head_dim),
        scale(shape.score_scale()),
        window(static_cast<int>(shape.window > 0 ? std::min(shape.window, shape.seq_len) : shape.seq_len)),
        documents(of_documents.i32()),
        document_stride(of_documents ? of_documents.extent(2) : 0),
        document_ends(shape.batch * document_stride) {}

  int seq_len, heads, kv_heads;
  std::int64_t row, out_row;      // elements from one position to the next in qkv and in out
  float scale;                    // of scores; times log2_e for softmax in base 2
  int window;                     // seq_len: none
  const std::int32_t* documents;  // beginnings (B, document_stride), then from document_ends on the ends; or null
  std::int64_t document_stride, document_ends;

  /// Whether rows see less than all keys before them.
  bool masked() const { return window < seq_len || documents != nullptr; }
  /// The first key that position t of sequence b sees, for t below seq_len.
  __device__ __forceinline__ int first_key(std::int64_t b, int t) const {
    const int key = max(0, t - window + 1);
    return documents == nullptr ? key : max(key, documents[b * document_stride + t]);
  }
  /// The first position behind key k of sequence b that does not see it.
  __device__ __forceinline__ int query_end(std::int64_t b, int k) const {
    const int end = min(seq_len, k + window);
    return documents == nullptr ? end : min(end, documents[document_ends + b * document_stride + k]);
  }

  /// Offset in qkv of position 0 of a head of sequence b: query heads first, then key, then value heads.
  template <int head_dim>
  __device__ __forceinline__ std::int64_t head(std::int64_t b, int head_in_row) const {
    return b * seq_len * row + static_cast<std::int64_t>(head_in_row) * head_dim;
  }
  /// Offset in out of position 0 of query head h of sequence b.
  template <int head_dim>
  __device__ __forceinline__ std::int64_t out_head(std::int64_t b, int h) const {
    return b * seq_len * out_row + static_cast<std::int64_t>(h) * head_dim;
  }
};

/// Calls run(std::bool_constant<masked>).
template <class Run>
void with_mask(bool masked, Run&& run) {
  if (masked) return run(std::true_type{});
  run(std::false_type{});
}

/// Calls run(std::integral_constant<int, head_dim>) for the head sizes that have kernels.
template <class Run>
void with_head_dim(int head_dim, Run&& run) {
  switch (head_dim) {
    case 32:
      return run(std::integral_constant<int, 32>{});
    case 64:
      return run(std::integral_constant<int, 64>{});
    case 128:
      return run(std::integral_constant<int, 128>{});
    default:
      throw Error("attention: head_dim = " + std::to_string(head_dim) +
                  ", but the CUDA back end has 32, 64 and 128: choose model.head_dim = one of these");
  }
}

// ---- tiles in shared memory ---------------------------------------------------------------------------------------

/// Element offset of 16-byte chunk c of row r in a tile of rows of head_dim bf16 without padding. Chunks are permuted
/// inside a row so that the eight rows which ldmatrix reads at the same c lie in the eight different 16-byte columns
/// of the banks: rows of 128 bytes and more need c ^ r % 8; two rows of 64 bytes share the banks' 128 bytes: c ^ r /
/// 2 % 4.
template <int head_dim>
__device__ __forceinline__ int tile_offset(int r, int c) {
  const int permuted = head_dim >= 64 ? c ^ (r % 8) : c ^ (r / 2 % 4);
  return r * head_dim + permuted * 8;
}

/// Starts copying rows [begin, begin + rows) of a head into a tile; zeros from row seq_len on. Called by `threads`
/// threads.
template <int rows, int head_dim, int threads>
__device__ __forceinline__ void load_tile(Bf16* tile, const Bf16* head, std::int64_t stride, int begin, int seq_len) {
  constexpr int chunks = head_dim / 8, step = threads / chunks;  // rows that the threads cover at a time
  static_assert(step % 8 == 0, "the permutation of chunks has period 8, so a thread's chunk keeps its place");
  const int thread = static_cast<int>(threadIdx.x), first = thread / chunks, chunk = thread % chunks;
  const Bf16* source = head + (begin + first) * stride + chunk * 8;
  Bf16* target = tile + tile_offset<head_dim>(first, chunk);
#pragma unroll 1  // unrolled, its addresses push the accumulators of head_dim 128 out of the registers
  for (int r = 0; r < rows; r += step) {
    if (rows % step == 0 || r + first < rows) cp_async_16(target, source, begin + first + r < seq_len);
    source += step * stride;
    target += step * head_dim;
  }
}

/// Where a lane points for ldmatrix_x4 of four 8x8 matrices in 16 rows x 2 chunks: (rows 0-7, chunk 0), (8-15, 0),
/// (0-7, 1), (8-15, 1). That is operand a for a tile (row, k) and, transposed, operand b of two neighbouring column
/// groups for a tile (k, column).
template <int head_dim>
__device__ __forceinline__ int down_then_right() {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  return tile_offset<head_dim>(lane % 16, lane / 16);
}

/// The same four matrices in the order (0-7, 0), (0-7, 1), (8-15, 0), (8-15, 1): operand b of two neighbouring column
/// groups for a tile (column, k).
template <int head_dim>
__device__ __forceinline__ int right_then_down() {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  return tile_offset<head_dim>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}

/// Moves a lane's offset to the row and column given, multiples of 8 and 16. The permutation xors 3 bits of the
/// chunk, so a column below 64 is xored, too; what lies above is added, which costs no register where it is a
/// constant.
template <int head_dim>
__device__ __forceinline__ int moved(int lane_offset, int row, int column) {
  return (lane_offset ^ (column % 64)) + column / 64 * 64 + row * head_dim;
}

// ---- products of one warp
// -------------------------------------------------------------------------------------------

/// c (16 M, 8 N) += a (16 M, head_dim) b (8 N, head_dim)^T, a and b tiles in shared memory.
template <int head_dim, int M, int N>
__device__ __forceinline__ void multiply_transposed(float (&c)[M][N][4], const Bf16* a, const Bf16* b) {
  static_assert(N % 2 == 0);
  const int a_lane = down_then_right<head_dim>(), b_lane = right_then_down<head_dim>();
#pragma unroll
  for (int k = 0; k < head_dim; k += 16) {
    unsigned a_part[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) ldmatrix_x4(a_part[m], a + moved<head_dim>(a_lane, 16 * m, k));
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      unsigned both[4];
      ldmatrix_x4(both, b + moved<head_dim>(b_lane, 8 * n, k));
      const unsigned left[2] = {both[0], both[1]}, right[2] = {both[2], both[3]};
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_bf16_16816(c[m][n], a_part[m], left);
        mma_bf16_16816(c[m][n + 1], a_part[m], right);
      }
    }
  }
}

/// c (16 M, head_dim) += p (16 M, 8 K) b (8 K, head_dim), p rounded to bf16, b a tile in shared memory. Two
/// neighbouring column groups of an accumulator are, rounded and packed, operand a of the next product: no way
/// through memory.
template <int head_dim, int M, int K>
__device__ __forceinline__ void multiply(float (&c)[M][head_dim / 8][4], const float (&p)[M][K][4], const Bf16* b) {
  static_assert(K % 2 == 0);
  const int b_lane = down_then_right<head_dim>();
#pragma unroll
  for (int k = 0; k < K; k += 2) {
    unsigned a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      a[m][0] = pack_bf16(p[m][k][0], p[m][k][1]);
      a[m][1] = pack_bf16(p[m][k][2], p[m][k][3]);
      a[m][2] = pack_bf16(p[m][k + 1][0], p[m][k + 1][1]);
      a[m][3] = pack_bf16(p[m][k + 1][2], p[m][k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < head_dim / 8; n += 2) {
      unsigned both[4];
      ldmatrix_x4_trans(both, b + moved<head_dim>(b_lane, 8 * k, 8 * n));
      const unsigned left[2] = {both[0], both[1]}, right[2] = {both[2], both[3]};
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma_bf16_16816(c[m][n], a[m], left);
        mma_bf16_16816(c[m][n + 1], a[m], right);
      }
    }
  }
}

/// Which axis of a tile of scores counts the keys.
enum class KeyAxis { rows, columns };

/// Scores whose key lies behind the query become -infinity. lead = position of the tile's first query - that of its
/// first key.
template <KeyAxis key_axis, int M, int N>
__device__ __forceinline__ void mask_future(float (&scores)[M][N][4], int lead) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = 16 * m + lane / 4 + 8 * (e / 2), column = 8 * n + 2 * (lane % 4) + e % 2;
        const int ahead = key_axis == KeyAxis::columns ? column - row : row - column;
        if (ahead > lead) scores[m][n][e] = -INFINITY;
      }
    }
  }
}

/// Scores out of sight become -infinity: a row (query) sees columns (keys) from limits[m][half] on, counted in the tile.
template <int M, int N>
__device__ __forceinline__ void mask_columns_before(float (&scores)[M][N][4], const int (&limits)[M][2],
                                                    int tile_begin) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = tile_begin + 8 * n + 2 * (lane % 4) + e % 2;
        if (column < limits[m][e / 2]) scores[m][n][e] = -INFINITY;
      }
    }
  }
}
/// The same where a row (key) is seen by columns (queries) below limits[m][half].
template <int M, int N>
__device__ __forceinline__ void mask_columns_from(float (&scores)[M][N][4], const int (&limits)[M][2], int tile_begin) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = tile_begin + 8 * n + 2 * (lane % 4) + e % 2;
        if (column >= limits[m][e / 2]) scores[m][n][e] = -INFINITY;
      }
    }
  }
}
/// limit(row) of a lane's rows first_row + 16 m + 8 half + lane / 4; rows from seq_len on take the last one's.
template <int M, class Limit>
__device__ __forceinline__ void row_limits(int (&limits)[M][2], int first_row, int seq_len, const Limit& limit) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int i = 0; i < 2 * M; ++i) limits[i / 2][i % 2] = limit(min(first_row + 8 * i + lane / 4, seq_len - 1));
}

/// Writes a warp's 16 M rows scale * c, rounded to bf16, to rows [begin, begin + 16 M) of a head, but none from
/// seq_len on. They pass through `tile`, 16 M rows that no other warp reads any more, so that lanes write 16 bytes
/// each.
template <int head_dim, int M>
__device__ __forceinline__ void store_rows(Bf16* head, std::int64_t stride, int begin, int seq_len,
                                           const float (&c)[M][head_dim / 8][4], float scale, Bf16* tile) {
  constexpr int chunks = head_dim / 8;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < chunks; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Bf16* const target = tile + tile_offset<head_dim>(16 * m + 8 * half + lane / 4, n) + 2 * (lane % 4);
        *reinterpret_cast<__nv_bfloat162*>(target) =
            __floats2bfloat162_rn(scale * c[m][n][2 * half], scale * c[m][n][2 * half + 1]);
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 16 * M * chunks; i += warp_size) {
    const int r = i / chunks, chunk = i % chunks;
    if (begin + r < seq_len) {
      store_16(head + (begin + r) * stride + chunk * 8, load8(tile + tile_offset<head_dim>(r, chunk)));
    }
  }
}

}  // namespace vqlm::cuda::attention
