// RMSNorm (arXiv 1910.07467), with the residual sum in front of it. With xhat = x rstd and g = dy gain:
//   dx = rstd (g - xhat mean(g xhat)),  dgain = sum over rows of dy xhat.
//
// Bound by memory. Bytes for each element: forward 8 (x, branch, sum, y; 4 without a branch), backward 6 (dy, x, dx; 8 where
// dx accumulates); about 6 and 12 operations. N = 16,384, d = 768: forward 101 MB, 23 us at 4.3 TB/s; backward 75 MB, 18 us,
// and partial gain gradients of at most 512 * multiprocessors * 32 floats (8.7 MB on an H200), which stay in L2; not measured.
//
// A block takes a row at a time and keeps it in registers, 32 elements a thread, so memory is read once; d = 768 is one warp,
// whose reductions need no other. gain comes from L1. dgain: each block sums its rows in registers and writes one partial row;
// add_partial_sums adds those in order.
#include <string>

#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/partial_sums.h"
#include "core/ops/rmsnorm.h"

namespace vqlm::cuda {
namespace {

constexpr int elements_per_thread = 32;
constexpr int max_threads = 512;  // leaves 128 registers for each thread; backward holds 3 * 32 floats
constexpr std::int64_t max_columns = elements_per_thread * max_threads;

/// The column at which pack p of this thread begins; the packs of neighbouring threads are neighbours.
template <int width>
__device__ __forceinline__ std::int64_t column_of_pack(int p) {
  return static_cast<std::int64_t>(p * blockDim.x + threadIdx.x) * width;
}

template <int width>
__global__ void __launch_bounds__(max_threads)
    rmsnorm_forward_kernel(__nv_bfloat16* y, float* rstd, __nv_bfloat16* sum, const __nv_bfloat16* x,
                           const __nv_bfloat16* branch, const float* gain, std::int64_t columns, float eps) {
  constexpr int packs = elements_per_thread / width;
  const std::int64_t row = blockIdx.x, begin = row * columns;
  float row_x[packs][width];
  float squares = 0;
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const std::int64_t c = column_of_pack<width>(p);
    if (c >= columns) break;
    load_pack(row_x[p], x + begin + c);
    if (branch != nullptr) {
      float addend[width];
      load_pack(addend, branch + begin + c);
#pragma unroll
      for (int k = 0; k < width; ++k) {
        // Normalised is what is stored, so that backward finds the same x.
        row_x[p][k] = to_float(from_float<__nv_bfloat16>(row_x[p][k] + addend[k]));
      }
      store_pack(sum + begin + c, row_x[p]);
    }
#pragma unroll
    for (int k = 0; k < width; ++k) squares += row_x[p][k] * row_x[p][k];
  }
  // The quotient and root in full precision: once a row.
  const float scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(columns) + eps);
  if (threadIdx.x == 0) rstd[row] = scale;
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const std::int64_t c = column_of_pack<width>(p);
    if (c >= columns) break;
    float factor[width];
    load_pack(factor, gain + c);
#pragma unroll
    for (int k = 0; k < width; ++k) factor[k] *= row_x[p][k] * scale;
    store_pack(y + begin + c, factor);
  }
}

/// partial_dgain (blocks, columns): the sum over rows blockIdx.x, blockIdx.x + gridDim.x, ...
template <int width>
__global__ void __launch_bounds__(max_threads)
    rmsnorm_backward_kernel(__nv_bfloat16* dx, float* partial_dgain, const __nv_bfloat16* dy, const __nv_bfloat16* x,
                            const float* gain, const float* rstd, std::int64_t rows, std::int64_t columns,
                            bool accumulate) {
  constexpr int packs = elements_per_thread / width;
  float dgain[packs][width] = {};
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const std::int64_t begin = row * columns;
    const float scale = rstd[row];
    float row_g[packs][width], row_x[packs][width];  // g and xhat
    float dot = 0;
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const std::int64_t c = column_of_pack<width>(p);
      if (c >= columns) break;
      float factor[width];
      load_pack(row_g[p], dy + begin + c);
      load_pack(row_x[p], x + begin + c);
      load_pack(factor, gain + c);
#pragma unroll
      for (int k = 0; k < width; ++k) {
        row_x[p][k] *= scale;
        dgain[p][k] += row_g[p][k] * row_x[p][k];
        row_g[p][k] *= factor[k];
        dot += row_g[p][k] * row_x[p][k];
      }
    }
    const float mean = block_sum(dot) / static_cast<float>(columns);
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const std::int64_t c = column_of_pack<width>(p);
      if (c >= columns) break;
      float result[width] = {};
      if (accumulate) load_pack(result, dx + begin + c);
#pragma unroll
      for (int k = 0; k < width; ++k) result[k] += scale * (row_g[p][k] - row_x[p][k] * mean);
      store_pack(dx + begin + c, result);
    }
  }
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const std::int64_t c = column_of_pack<width>(p);
    if (c < columns) store_pack(partial_dgain + blockIdx.x * columns + c, dgain[p]);
  }
}

/// Whole warps that hold a row.
unsigned threads_for(std::int64_t columns) {
  if (columns > max_columns) {
    throw Error("rmsnorm on a GPU takes rows of at most " + std::to_string(max_columns) + " elements; d_model is " +
                std::to_string(columns));
  }
  const std::int64_t threads = ceil_div<std::int64_t>(columns, elements_per_thread);
  return static_cast<unsigned>(ceil_div<std::int64_t>(threads, warp_size) * warp_size);
}

}  // namespace

template <>
void run(const Context& context, const RmsnormForward& op) {
  const std::int64_t rows = op.x.extent(0), columns = op.x.extent(1);
  if (op.x.numel() == 0) return;
  const bool wide = rows_in_packs<8>(columns, bf16(op.y), bf16(op.sum), bf16(op.x), bf16(op.branch)) &&
                    rows_in_packs<4>(columns, op.gain.f32());
  launch(wide ? rmsnorm_forward_kernel<8> : rmsnorm_forward_kernel<1>,
         {dim3(static_cast<unsigned>(rows)), threads_for(columns), 0, context.stream}, bf16(op.y), op.rstd.f32(),
         bf16(op.sum), bf16(op.x), bf16(op.branch), op.gain.f32(), columns, op.eps);
}

template <>
void run(const Context& context, const RmsnormBackward& op) {
  const std::int64_t rows = op.x.extent(0), columns = op.x.extent(1);
  const bool accumulate = op.accumulate_dx == Accumulate::yes;
  if (op.x.numel() == 0) return;
  const unsigned threads = threads_for(columns);
  // 512 threads for each multiprocessor: what 128 registers a thread let run at once.
  const std::int64_t blocks = std::min<std::int64_t>(
      rows, std::max(context.multiprocessors, 1) * static_cast<std::int64_t>(max_threads / threads));
  auto* const partials =
      static_cast<float*>(context.workspace->get(static_cast<std::size_t>(blocks * columns) * sizeof(float)));
  const bool wide =
      rows_in_packs<8>(columns, bf16(op.dx), bf16(op.dy), bf16(op.x)) && rows_in_packs<4>(columns, op.gain.f32());
  launch(wide ? rmsnorm_backward_kernel<8> : rmsnorm_backward_kernel<1>,
         {dim3(static_cast<unsigned>(blocks)), threads, 0, context.stream}, bf16(op.dx), partials, bf16(op.dy),
         bf16(op.x), op.gain.f32(), op.rstd.f32(), rows, columns, accumulate);
  add_partial_sums(context, op.dgain.f32(), partials, blocks, columns, columns);
}

}  // namespace vqlm::cuda
