#include "tests/simt/example_kernels.h"

#include "core/cuda/device_utils.h"
#include "core/cuda/launch.h"
#include "core/cuda/tensor_core.h"

namespace vqlm::cuda {
namespace {

__global__ void row_sums_kernel(float* sums, const float* x, int columns) {
  const std::int64_t row = blockIdx.x;
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) {
    sum += x[row * columns + i];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[row] = sum;
}

__global__ void reverse_blocks_kernel(int* out, const int* in) {
  int* tile = dynamic_shared<int>();
  const unsigned base = blockIdx.x * blockDim.x;
  tile[threadIdx.x] = in[base + threadIdx.x];
  __syncthreads();
  out[base + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

// One warp makes a 16x8 tile of c; both operands pass through shared memory in two stages of 16 k each.
__global__ void __launch_bounds__(32)
    tile_matmul_kernel(float* c, const __nv_bfloat16* a, const __nv_bfloat16* b, int n, int k) {
  __shared__ __align__(16) __nv_bfloat16 a_tile[2][16][24];  // rows padded to 48 bytes: ldmatrix without conflicts
  __shared__ __align__(16) __nv_bfloat16 b_tile[2][8][24];
  const int lane = static_cast<int>(threadIdx.x);
  const int row0 = static_cast<int>(blockIdx.y) * 16, column0 = static_cast<int>(blockIdx.x) * 8;
  const auto fetch = [&](int stage, int k0) {
    const int row = lane / 2, part = lane % 2 * 8;
    cp_async_16(&a_tile[stage][row][part], a + static_cast<std::int64_t>(row0 + row) * k + k0 + part, true);
    if (lane < 16) {
      cp_async_16(&b_tile[stage][row][part], b + static_cast<std::int64_t>(column0 + row) * k + k0 + part, true);
    }
    cp_async_commit();
  };
  float accumulator[4] = {};
  fetch(0, 0);
  for (int k0 = 0; k0 < k; k0 += 16) {
    const int stage = k0 / 16 % 2;
    if (k0 + 16 < k) {
      fetch(1 - stage, k0 + 16);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncwarp();
    unsigned a_registers[4], b_registers[2];
    ldmatrix_x4(a_registers, &a_tile[stage][lane % 16][lane / 16 * 8]);
    ldmatrix_x2(b_registers, &b_tile[stage][lane % 8][lane / 8 % 2 * 8]);
    mma_bf16_16816(accumulator, a_registers, b_registers);
    __syncwarp();
  }
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) {
    c[static_cast<std::int64_t>(row0 + g + i / 2 * 8) * n + column0 + 2 * t + i % 2] = accumulator[i];
  }
}

__global__ void histogram_kernel(int* counts, const int* ids, std::int64_t n) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(counts + ids[i], 1);
}

__global__ void load_matrices_kernel(float* plain, float* transposed, float* two, const __nv_bfloat16* matrices) {
  __shared__ __align__(16) __nv_bfloat16 tile[4][8][8];
  const int lane = static_cast<int>(threadIdx.x);
  *reinterpret_cast<uint4*>(&tile[lane / 8][lane % 8][0]) = load8(matrices + lane * 8);
  __syncwarp();
  const auto unpack = [](float* out, unsigned pair) {
    out[0] = __uint_as_float(pair << 16);
    out[1] = __uint_as_float(pair & 0xffff0000u);
  };
  unsigned r[4], r2[2];
  ldmatrix_x4(r, &tile[lane / 8][lane % 8][0]);
  for (int i = 0; i < 4; ++i) unpack(plain + lane * 8 + i * 2, r[i]);
  ldmatrix_x4_trans(r, &tile[lane / 8][lane % 8][0]);
  for (int i = 0; i < 4; ++i) unpack(transposed + lane * 8 + i * 2, r[i]);
  ldmatrix_x2_trans(r2, lane < 16 ? &tile[lane / 8][lane % 8][0] : nullptr);
  for (int i = 0; i < 2; ++i) unpack(two + lane * 4 + i * 2, r2[i]);
}

__global__ void shuffles_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x), value = 100 + lane;
  int* mine = out + lane * shuffle_results;
  mine[0] = __shfl_xor_sync(full_mask, value, 5);
  mine[1] = __shfl_up_sync(full_mask, value, 3);
  mine[2] = __shfl_down_sync(full_mask, value, 3);
  mine[3] = __shfl_sync(full_mask, value, 7);
  mine[4] = __shfl_sync(full_mask, value, 2, 8);
  mine[5] = __shfl_down_sync(full_mask, value, 1, 8);
  mine[6] = static_cast<int>(__ballot_sync(full_mask, lane % 2));
  mine[7] = __any_sync(full_mask, lane == 31);
  mine[8] = __all_sync(full_mask, lane == 31);
  mine[9] = lane < 16 ? __shfl_sync(0xffffu, value, 15 - lane) : -1;
  const long long wide = __shfl_xor_sync(full_mask, 1'000'000'007'000LL + lane, 1);
  mine[10] = static_cast<int>(wide / 1000 % 1000 + wide % 1000);
}

}  // namespace

void row_sums(cudaStream_t stream, float* sums, const float* x, int rows, int columns) {
  if (rows == 0) return;
  launch(row_sums_kernel, {rows, 256, 0, stream}, sums, x, columns);
}

void reverse_blocks(cudaStream_t stream, int* out, const int* in, int blocks, int threads) {
  launch(reverse_blocks_kernel, {blocks, threads, sizeof(int) * threads, stream}, out, in);
}

void tile_matmul(cudaStream_t stream, float* c, const __nv_bfloat16* a, const __nv_bfloat16* b, int m, int n, int k) {
  launch(tile_matmul_kernel, {dim3(n / 8, m / 16), 32, 0, stream}, c, a, b, n, k);
}

void histogram(cudaStream_t stream, int* counts, const int* ids, std::int64_t n) {
  if (n == 0) return;
  launch(histogram_kernel, {ceil_div(n, std::int64_t{256}), 256, 0, stream}, counts, ids, n);
}

void load_matrices(cudaStream_t stream, float* plain, float* transposed, float* two, const __nv_bfloat16* matrices) {
  launch(load_matrices_kernel, {1, 32, 0, stream}, plain, transposed, two, matrices);
}

void shuffles(cudaStream_t stream, int* out) {
  launch(shuffles_kernel, {1, 32, 0, stream}, out);
}

}  // namespace vqlm::cuda
