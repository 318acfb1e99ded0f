// Pieces of attention_backward_sm90.cu: a block's shared memory, its threads' places, and the step from scores to their
// gradient.
#pragma once

#include <cstddef>

#include "core/cuda/attention_gradient.h"
#include "core/cuda/attention_tiles_sm90.h"

namespace vqlm::cuda::attention {

constexpr int gradient_groups = 2;  // warpgroups that compute
constexpr int gradient_threads = (1 + gradient_groups) * warpgroup_threads;
constexpr int gradient_rows = gradient_groups * warpgroup_rows;  // a block's own
constexpr int gradient_stages = 2;
constexpr int gradient_producer_registers = 24, gradient_consumer_registers = 240;  // 128 x 24 + 256 x 240 <= 65,536

/// Shared memory of a block: two tiles of its own rows, two tiles of `columns` rows a stage (and constants of the queries
/// among them), and barriers: own, when the block's rows are there; full and empty, of a stage.
template <int head_dim, int tile_columns>
struct GradientStages {
  static constexpr int columns = tile_columns;
  static constexpr int own_elements = gradient_rows * head_dim, elements = columns * head_dim;
  static constexpr unsigned own_bytes = 2 * own_elements * sizeof(Bf16), bytes = 2 * elements * sizeof(Bf16);
  static constexpr unsigned constants_bytes = columns * sizeof(QueryConstants);
  static constexpr std::size_t shared_bytes =
      1024 + own_bytes + gradient_stages * (bytes + constants_bytes) + (1 + 2 * gradient_stages) * sizeof(Mbarrier);

  // One pointer, from which all else is a constant away: registers are scarce.
  __device__ __forceinline__ GradientStages() : begin(dynamic_shared_1024<Bf16>()) {}
  /// Own tiles and streamed ones: i 0 (k, q) or 1 (v, dout).
  __device__ __forceinline__ Bf16* own_tile(int i) const { return begin + i * own_elements; }
  __device__ __forceinline__ Bf16* tile(int stage, int i) const {
    return begin + 2 * own_elements + (2 * stage + i) * elements;
  }
  __device__ __forceinline__ QueryConstants* constants(int stage) const {
    return reinterpret_cast<QueryConstants*>(tile(gradient_stages, 0)) + stage * columns;
  }
  __device__ __forceinline__ Mbarrier* own() const { return reinterpret_cast<Mbarrier*>(constants(gradient_stages)); }
  __device__ __forceinline__ Mbarrier* full(int stage) const { return own() + 1 + stage; }
  __device__ __forceinline__ Mbarrier* empty(int stage) const { return own() + 1 + gradient_stages + stage; }

  __device__ __forceinline__ void init_barriers() const {
    mbarrier_init(own(), 1);
    for (int stage = 0; stage < gradient_stages; ++stage) {
      mbarrier_init(full(stage), 1);
      mbarrier_init(empty(stage), gradient_groups * 4);
    }
    mbarrier_init_fence();
  }

  Bf16* begin;
};

template <int head_dim>
using KeyStages = GradientStages<head_dim, 64>;
template <int head_dim>
using QueryStages = GradientStages<head_dim, gradient_rows>;

constexpr int load_rows = 64;  // of the maps' boxes

/// Where a thread stands: its warpgroup of those that compute, its warp's first row of the block's.
struct Place {
  __device__ __forceinline__ explicit Place(int block_begin) {
    const int thread = static_cast<int>(threadIdx.x) - warpgroup_threads;
    group = thread / warpgroup_threads;
    lane = thread % warp_size;
    warp_row = thread / warp_size * 16;
    first_row = block_begin + warp_row;
  }
  int group, lane, warp_row, first_row;
};

/// What a thread needs of the queries of its sums c[n][e]: where queries are columns, from shared memory,
struct ColumnConstants {
  __device__ __forceinline__ float4 both(int n) const {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    return *reinterpret_cast<const float4*>(of_tile + 8 * n + 2 * (lane % 4));
  }
  __device__ __forceinline__ float lse_log2(int n, int e) const { return e % 2 == 0 ? both(n).x : both(n).z; }
  __device__ __forceinline__ float delta(int n, int e) const { return e % 2 == 0 ? both(n).y : both(n).w; }
  const QueryConstants* of_tile;
};
/// where they are rows, from registers.
struct RowConstants {
  __device__ __forceinline__ float lse_log2(int, int e) const { return of_rows[e / 2].lse_log2; }
  __device__ __forceinline__ float delta(int, int e) const { return of_rows[e / 2].delta; }
  QueryConstants of_rows[2];
};

/// Raw scores become p.
template <int N, class Constants>
__device__ __forceinline__ void probabilities(float (&scores)[N][4], const Constants& constants, float scale_log2) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      scores[n][e] = exp2_approx(fmaf(scores[n][e], scale_log2, -constants.lse_log2(n, e)));
    }
  }
}
/// dp becomes the gradient of the scaled scores.
template <int N, class Constants>
__device__ __forceinline__ void score_gradients(float (&dp)[N][4], const float (&p)[N][4], const Constants& constants) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) dp[n][e] = p[n][e] * (dp[n][e] - constants.delta(n, e));
  }
}

}  // namespace vqlm::cuda::attention
