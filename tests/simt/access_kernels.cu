#include "tests/simt/access_kernels.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "core/cuda/launch.h"
#include "core/cuda/packs.h"
#include "core/cuda/tensor_core.h"

namespace vqlm::cuda {
namespace {

constexpr int most_floats = 4096;

template <int width>
__global__ void through_shared_kernel(float* out, int store_stride, int load_stride, SharedKind kind) {
  using T = Pack<float, width>;
  __shared__ __align__(16) T own[most_floats / width];
  T* const tile = kind == SharedKind::dynamic ? dynamic_shared<T>() : own;
  const int lane = static_cast<int>(threadIdx.x);
  T ones;
  for (float& one : ones.at) one = 1;
  tile[lane * store_stride] = ones;
  __syncwarp();
  const T loaded = tile[lane * load_stride];
  reinterpret_cast<T*>(out)[lane] = loaded;
}

template <int width>
__global__ void copy_strided_kernel(float* out, const float* in, int stride) {
  using T = Pack<float, width>;
  const int lane = static_cast<int>(threadIdx.x);
  const T loaded = *reinterpret_cast<const T*>(in + lane * stride);
  reinterpret_cast<T*>(out)[lane] = loaded;
}

__global__ void copy_in_loop_kernel(float* out, const float* in, int n, int every) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane % every != 0) return;
  for (int i = lane; i < n; i += warp_size) out[i] = in[i];
}

__global__ void store_in_turns_kernel(float* out, int turns, bool meet) {
  const int lane = static_cast<int>(threadIdx.x);
  for (int turn = 0; turn < turns; ++turn) {
    if (turn > 0 || lane % 2 == 0) out[turn * warp_size + lane] = 1.0f;
    if (meet) __syncwarp();
  }
}

__global__ void copy_by_cp_async_kernel(float* out, const float* in, int stride, int valid) {
  __shared__ __align__(16) float4 tile[most_floats / 4];
  const int lane = static_cast<int>(threadIdx.x);
  cp_async_16(tile + lane * stride, in + 4 * lane, lane < valid);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  const float4 loaded = tile[lane * stride];
  reinterpret_cast<float4*>(out)[lane] = loaded;
}

template <int matrices>
__global__ void load_matrix_rows_kernel(float* out, int row_bytes) {
  __shared__ __align__(16) unsigned char rows[warp_size * 128];
  const int lane = static_cast<int>(threadIdx.x);
  unsigned r[matrices];
  const unsigned char* const row = rows + lane * row_bytes;
  if constexpr (matrices == 4) {
    ldmatrix_x4(r, row);
  } else {
    ldmatrix_x2(r, row);
  }
  out[lane] = __uint_as_float(r[0]);
}

__global__ void add_atomically_kernel(int* out, int stride) {
  __shared__ int sums[most_floats];
  const int lane = static_cast<int>(threadIdx.x);
  atomicAdd(&sums[lane * stride], 1);
  atomicAdd(&out[lane * stride], 1);
}

}  // namespace

void through_shared(cudaStream_t stream, float* out, int width, int store_stride, int load_stride, SharedKind kind) {
  const auto kernel = width == 1   ? through_shared_kernel<1>
                      : width == 2 ? through_shared_kernel<2>
                                   : through_shared_kernel<4>;
  launch(kernel, {1, warp_size, most_floats * sizeof(float), stream}, out, store_stride, load_stride, kind);
}

void copy_strided(cudaStream_t stream, float* out, const float* in, int width, int stride) {
  const auto kernel = width == 1   ? copy_strided_kernel<1>
                      : width == 2 ? copy_strided_kernel<2>
                      : width == 4 ? copy_strided_kernel<4>
                                   : copy_strided_kernel<8>;
  launch(kernel, {1, warp_size, 0, stream}, out, in, stride);
}

void copy_in_loop(cudaStream_t stream, float* out, const float* in, int n, int every) {
  launch(copy_in_loop_kernel, {1, warp_size, 0, stream}, out, in, n, every);
}

void store_in_turns(cudaStream_t stream, float* out, int turns, bool meet) {
  launch(store_in_turns_kernel, {1, warp_size, 0, stream}, out, turns, meet);
}

void copy_by_cp_async(cudaStream_t stream, float* out, const float* in, int stride, int valid) {
  launch(copy_by_cp_async_kernel, {1, warp_size, 0, stream}, out, in, stride, valid);
}

void load_matrix_rows(cudaStream_t stream, float* out, int row_bytes, int matrices) {
  launch(matrices == 4 ? load_matrix_rows_kernel<4> : load_matrix_rows_kernel<2>, {1, warp_size, 0, stream}, out,
         row_bytes);
}

void add_atomically(cudaStream_t stream, int* out, int stride) {
  launch(add_atomically_kernel, {1, warp_size, 0, stream}, out, stride);
}

}  // namespace vqlm::cuda
