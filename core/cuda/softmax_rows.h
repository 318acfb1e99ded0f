// A row of softmax in the hands of several threads: what cross_entropy.cu and softmax_cross_entropy.cu do with its elements.
#pragma once

#include <cfloat>
#include <cstdint>

#include "core/cuda/device_utils.h"
#include "core/ops/cross_entropy.h"

namespace vqlm::cuda {

constexpr int block_threads = 256;      // of kernels that share out rows by RowThreads
constexpr int warp_row_classes = 1024;  // up to here a warp has work for all its lanes' loads, and no barriers

/// How the threads of a block share rows: `threads` threads a row.
template <int threads>
struct RowThreads {
  static constexpr int rows_per_block = block_threads / threads;

  __device__ __forceinline__ static std::int64_t row() {
    return static_cast<std::int64_t>(blockIdx.x) * rows_per_block + threadIdx.x / threads;
  }
  __device__ __forceinline__ static int index() { return static_cast<int>(threadIdx.x) % threads; }
  __device__ __forceinline__ static float sum(float x) { return threads == warp_size ? warp_sum(x) : block_sum(x); }
  __device__ __forceinline__ static float maximum(float x) { return threads == warp_size ? warp_max(x) : block_max(x); }
};

/// cap tanh(x / cap), or x where cap is 0.
__device__ __forceinline__ float capped(float x, float cap) {
  return cap > 0 ? cap * tanhf(x / cap) : x;
}

/// Maximum and sum of exp(x - maximum) so far. It begins with the lowest number, not -infinity, whose difference with
/// itself would be NaN.
struct RunningSum {
  float maximum = -FLT_MAX, sum = 0;

  __device__ __forceinline__ void raise(float x) {
    if (x > maximum) {
      sum *= exp_approx(maximum - x);
      maximum = x;
    }
  }
  __device__ __forceinline__ void one(std::int64_t, float x) {
    raise(x);
    sum += exp_approx(x - maximum);  // a NaN raises nothing, but stays in the sum
  }
  __device__ __forceinline__ void pack(std::int64_t, const float (&x)[8]) {
    float largest = x[0];
#pragma unroll
    for (int i = 1; i < 8; ++i) largest = fmaxf(largest, x[i]);
    raise(largest);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += exp_approx(x[i] - maximum);
  }
  /// Of the threads of a row together, in all of them.
  template <int threads>
  __device__ __forceinline__ void combine() {
    const float all = RowThreads<threads>::maximum(maximum);
    sum = RowThreads<threads>::sum(sum * exp_approx(maximum - all));
    maximum = all;
  }
};

/// The target's column in this shard, or -1.
__device__ __forceinline__ std::int64_t column_of(std::int32_t target, const ClassShard& classes) {
  const std::int64_t column = target - classes.first;
  return target >= 0 && column >= 0 && column < classes.count ? column : -1;
}

/// The gradient of a row's logits, from them.
struct RowGradient {
  std::int64_t target;  // column, or -1
  float lse, scale;
  float of_z;  // 1 + 2 z_loss lse
  bool has_target;
  float cap;

  __device__ __forceinline__ float operator()(std::int64_t column, float x) const {
    if (!has_target) return 0.0f;
    const float dx = scale * (exp_approx(x - lse) * of_z - (column == target ? 1.0f : 0.0f));
    return cap > 0 ? dx * (1 - (x / cap) * (x / cap)) : dx;
  }
};

}  // namespace vqlm::cuda
