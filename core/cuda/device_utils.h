// What most kernels share: reductions over warps and blocks, packs of bf16, conversions. Compiled for the GPU and, in
// tests/simt, for the host executor.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>

#include "core/cuda/tensor_core.h"

namespace vqlm::cuda {

constexpr int warp_size = 32;
constexpr unsigned full_mask = 0xffffffffu;

template <class T>
__host__ __device__ constexpr T ceil_div(T numerator, T denominator) {
  return (numerator + denominator - 1) / denominator;
}

__device__ __forceinline__ float to_float(float x) {
  return x;
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

/// from_float<T>(x): rounds to nearest even where T is bf16.
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/// e^x by the special function unit, (2 + |x|) units in the last place off and exactly 1 for 0. Results below the normal
/// numbers are 0: to keep those takes __expf four instructions more (machine code of nvcc 13.0).
__device__ __forceinline__ float exp_approx(float x) {
  constexpr float log2_e = 1.4426950408889634f;
  return exp2_approx(x * log2_e);
}

/// Reads 8 bf16 from a 16-byte aligned address as four pairs, the first in the low half of .x. By way of uint4, because
/// nvcc copies a struct of __nv_bfloat162 member by member: four 4-byte accesses, each of which takes a warp over the same
/// lines again (seen in the PTX of nvcc 13.0; tests/cuda/vector_access_test.py).
__device__ __forceinline__ uint4 load8(const __nv_bfloat16* source) {
  return *reinterpret_cast<const uint4*>(source);
}

/// The 8 elements of four pairs, as floats.
__device__ __forceinline__ void unpack8(float (&x)[8], const uint4& words) {
  const unsigned pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 both = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pairs[i]));
    x[2 * i] = both.x;
    x[2 * i + 1] = both.y;
  }
}

/// Reads 8 elements from a 16-byte aligned address, as floats.
__device__ __forceinline__ void load8(float (&x)[8], const __nv_bfloat16* source) {
  unpack8(x, load8(source));
}

/// Writes 8 floats, rounded to nearest even, to a 16-byte aligned address in device memory (not shared memory).
__device__ __forceinline__ void store8(__nv_bfloat16* target, const float (&x)[8]) {
  unsigned pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
  store_16(target, make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]));
}

/// Sum over the warp, in every lane; the same tree in every run. T is float, double or an integer.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(full_mask, x, distance);
  return x;
}

/// Maximum over the warp, in every lane. A NaN is passed over, as fmaxf does.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(full_mask, x, distance));
  }
  return x;
}

namespace detail {

// Reduces `x` in each warp, then the warps' results in every warp, so that all threads leave with the same value. The
// barrier in front lets one scratch serve calls that follow each other.
template <class Reduce>
__device__ __forceinline__ float block_reduce(float x, float identity, Reduce reduce) {
  __shared__ float of_warp[warp_size];
  const int thread = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
  const int warps = static_cast<int>(blockDim.x * blockDim.y * blockDim.z) / warp_size;
  const int lane = thread % warp_size;
  x = reduce(x);
  __syncthreads();
  if (lane == 0) of_warp[thread / warp_size] = x;
  __syncthreads();
  return reduce(lane < warps ? of_warp[lane] : identity);
}

struct WarpSum {
  __device__ __forceinline__ float operator()(float x) const { return warp_sum(x); }
};
struct WarpMax {
  __device__ __forceinline__ float operator()(float x) const { return warp_max(x); }
};

}  // namespace detail

/// Sum over the block, in every thread. All threads must call; the block is a multiple of 32 threads, at most 1024.
__device__ __forceinline__ float block_sum(float x) {
  return detail::block_reduce(x, 0.0f, detail::WarpSum{});
}

/// Maximum over the block, in every thread; same conditions.
__device__ __forceinline__ float block_max(float x) {
  return detail::block_reduce(x, -INFINITY, detail::WarpMax{});
}

}  // namespace vqlm::cuda
