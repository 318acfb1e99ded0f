// AdamW with decoupled weight decay (arXiv 1711.05101) over flat ranges, and the sum of squares for clipping by the global norm.
//
// Bound by memory. adamw: 30 bytes a parameter (param, m, v read and written, grad read, the bf16 copy written), about 15
// operations. n = 124 M: 3.7 GB, floor 865 us at 4.3 TB/s; adamw_rows the same for the rows that it is given. add_sum_of_squares: 4 bytes, 115 us. moving_average: 12 bytes; K d = 256 x 4,096: 13 MB, 3 us. Not measured.
//
// The norm is read on the device, so the host does not wait for it; a thread computes the clipping factor once and then updates
// many packs. The sum of squares is made in double (a float's square is exact there), first in each block, then by one block
// over the blocks' sums, always in the same order.
#include <cmath>

#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/adamw.h"

namespace vqlm::cuda {
namespace {

constexpr int threads = 256;

/// What an update changes; rounded may be null.
struct Arrays {
  float* param;
  __nv_bfloat16* rounded;
  float* m;
  float* v;
};

/// What clipping multiplies gradients by; false where the norm is infinite or NaN.
__device__ __forceinline__ bool clipped(float& scale, const double* norm_squared, float max_norm) {
  const double norm = norm_squared == nullptr ? 0.0 : sqrt(*norm_squared);
  scale = max_norm > 0 && norm > static_cast<double>(max_norm) ? static_cast<float>(max_norm / norm) : 1.0f;
  return norm < HUGE_VAL;
}

/// Elements [i, i + width) by the gradients at `grad`.
template <int width>
__device__ __forceinline__ void update_pack(const Arrays& arrays, std::int64_t i, const float* grad,
                                            const AdamWCoefficients& k, float grad_scale) {
  float p[width], m[width], v[width], g[width];
  load_pack(p, arrays.param + i);
  load_pack(m, arrays.m + i);
  load_pack(v, arrays.v + i);
  load_pack(g, grad);
#pragma unroll
  for (int e = 0; e < width; ++e) {
    g[e] *= grad_scale;
    m[e] = k.keep_m * m[e] + k.add_m * g[e];
    v[e] = k.keep_v * v[e] + k.add_v * (g[e] * g[e]);
    const float update = k.step_size * m[e] / (sqrtf(v[e]) * k.root_scale + k.eps);
    p[e] = p[e] * k.keep_param - update;
  }
  store_pack(arrays.param + i, p);
  store_pack(arrays.m + i, m);
  store_pack(arrays.v + i, v);
  if (arrays.rounded != nullptr) store_pack(arrays.rounded + i, p);
}

__global__ void __launch_bounds__(threads)
    adamw_kernel(GridDependency dependency, Arrays arrays, const float* grad, const double* norm_squared,
                 std::int64_t n, std::int64_t head, AdamWCoefficients k, float max_norm) {
  dependency.wait();
  float grad_scale;
  if (!clipped(grad_scale, norm_squared, max_norm)) return;
  for_each_pack<4>(n, head, [=](auto pack_width, std::int64_t i) {
    update_pack<decltype(pack_width)::value>(arrays, i, grad + i, k, grad_scale);
  });
}

/// A thread takes neighbouring columns of a row.
template <int width>
__global__ void adamw_rows_kernel(GridDependency dependency, Arrays arrays, const float* grad, const std::int32_t* rows,
                                  const double* norm_squared, std::int64_t count, std::int64_t columns,
                                  AdamWCoefficients k, float max_norm) {
  dependency.wait();
  const std::int64_t row = row_of_thread();
  float grad_scale;
  if (row >= count || !clipped(grad_scale, norm_squared, max_norm)) return;
  const std::int64_t at = rows[row] * columns;
  for (std::int64_t c = threadIdx.x * width; c < columns; c += blockDim.x * width)
    update_pack<width>(arrays, at + c, grad + row * columns + c, k, grad_scale);
}

__global__ void __launch_bounds__(threads)
    moving_average_kernel(GridDependency dependency, float* average, const float* x, const double* norm_squared,
                          std::int64_t n, std::int64_t head, float keep, float add) {
  dependency.wait();
  if (!(*norm_squared < HUGE_VAL)) return;  // infinite or NaN
  for_each_pack<4>(n, head, [=](auto pack_width, std::int64_t i) {
    constexpr int width = decltype(pack_width)::value;
    float y[width], x_i[width];
    load_pack(y, average + i);
    load_pack(x_i, x + i);
#pragma unroll
    for (int e = 0; e < width; ++e) y[e] = keep * y[e] + add * x_i[e];
    store_pack(average + i, y);
  });
}

/// The sum over the block, in thread 0.
__device__ double block_sum_of_doubles(double x) {
  __shared__ double of_warp[threads / warp_size];
  x = warp_sum(x);
  if (threadIdx.x % warp_size == 0) of_warp[threadIdx.x / warp_size] = x;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0) {
    for (double of_one : of_warp) sum += of_one;
  }
  return sum;
}

/// partials (blocks): each block's sum of x^2.
__global__ void __launch_bounds__(threads) sum_of_squares_kernel(GridDependency dependency, double* partials,
                                                                 const float* x, std::int64_t n, std::int64_t head) {
  dependency.wait();
  double sum = 0;
  for_each_pack<4>(n, head, [&](auto pack_width, std::int64_t i) {
    constexpr int width = decltype(pack_width)::value;
    float x_i[width];
    load_pack(x_i, x + i);
#pragma unroll
    for (int e = 0; e < width; ++e) sum += static_cast<double>(x_i[e]) * static_cast<double>(x_i[e]);
  });
  sum = block_sum_of_doubles(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(threads)
    add_sums_kernel(GridDependency dependency, double* out, const double* partials, int count) {
  dependency.wait();
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) sum += partials[i];
  sum = block_sum_of_doubles(sum);
  if (threadIdx.x == 0) *out += sum;
}

/// Of AdamW and AdamWRows.
template <class Op>
Arrays arrays_of(const Op& op) {
  return {op.param.f32(), bf16(op.rounded), op.m.f32(), op.v.f32()};
}

}  // namespace

template <>
void run(const Context& context, const AddSumOfSquares& op) {
  const std::int64_t n = op.x.numel();
  if (n == 0) return;
  const dim3 blocks = flat_blocks<4>(context, n);
  auto* const partials = static_cast<double*>(context.workspace->get(blocks.x * sizeof(double)));
  launch(sum_of_squares_kernel, {blocks, threads, 0, context.stream}, partials, op.x.f32(), n,
         elements_before_packs<4>(n, op.x.f32()));
  launch(add_sums_kernel, {1, threads, 0, context.stream}, op.out.as<double>(), partials, static_cast<int>(blocks.x));
}

template <>
void run(const Context& context, const AdamW& op) {
  const AdamWStep& step = op.step;
  const std::int64_t n = op.param.numel();
  if (n == 0) return;
  // An absent copy does not matter for alignment: param stands in.
  const std::int64_t head =
      op.rounded ? elements_before_packs<4>(n, op.param.f32(), op.m.f32(), op.v.f32(), op.grad.f32(), bf16(op.rounded))
                 : elements_before_packs<4>(n, op.param.f32(), op.m.f32(), op.v.f32(), op.grad.f32());
  launch(adamw_kernel, {flat_blocks<4>(context, n), threads, 0, context.stream}, arrays_of(op), op.grad.f32(),
         op.norm_squared.as<double>(), n, head, adamw_coefficients(step), step.max_norm);
}

template <>
void run(const Context& context, const AdamWRows& op) {
  if (op.grad.numel() == 0) return;
  const std::int64_t columns = op.param.extent(1);
  const bool wide = rows_in_packs<4>(columns, op.param.f32(), op.m.f32(), op.v.f32(), op.grad.f32(), bf16(op.rounded));
  const RowBlocks blocks = row_blocks(op.rows.numel(), wide ? columns / 4 : columns);
  launch(wide ? adamw_rows_kernel<4> : adamw_rows_kernel<1>, {blocks.grid, blocks.block, 0, context.stream},
         arrays_of(op), op.grad.f32(), op.rows.i32(), op.norm_squared.as<double>(), op.rows.numel(), columns,
         adamw_coefficients(op.step), op.step.max_norm);
}

template <>
void run(const Context& context, const MovingAverage& op) {
  const std::int64_t n = op.average.numel();
  if (n == 0) return;
  launch(moving_average_kernel, {flat_blocks<4>(context, n), threads, 0, context.stream}, op.average.f32(), op.x.f32(),
         op.norm_squared.as<double>(), n, elements_before_packs<4>(n, op.average.f32(), op.x.f32()), op.decay,
         1.0f - op.decay);
}

}  // namespace vqlm::cuda
