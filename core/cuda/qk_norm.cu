// RMSNorm of query and key heads (core/ops/qk_norm.h), with xhat = x rstd and g = dqkv gain:
//   dx = rstd (g - xhat mean(g xhat)),  dgain = sum over rows (and heads) of dqkv xhat.
//
// Bound by memory. Bytes for each query or key element: squares 2, forward 4 (values: 4), dots 4, backward 6. N = 16,384,
// 16 + 8 heads of 128: 100, 268, 201 and 302 MB, floors 23, 62, 47 and 70 us at 4.3 TB/s; not measured.
//
// Sums: one warp a group. Forward and backward: one thread a pack of columns, whose group's rstd it makes anew. In backward a
// block walks over a share of the rows and keeps the columns' gain gradients in registers; the shares' sums lie as (shares,
// heads, head_dim), which add_partial_sums adds over rows and, for a gain that all heads share, heads at once.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/partial_sums.h"
#include "core/ops/qk_norm.h"

namespace vqlm::cuda {
namespace {

constexpr int sum_warps = 8;  // groups that a block of sums_kernel takes at once
constexpr int threads = 256;

/// What the kernels need of a call: groups of the query heads are q_size columns wide, of the key heads k_size.
struct QkRows {
  std::int64_t rows, row;       // of qkv, and elements from one to the next
  std::int64_t queries, keys;   // columns
  std::int64_t q_size, k_size;  // columns of a group
  std::int64_t query_groups, groups;
  const float *q_gain, *k_gain;
  float q_count, k_count;  // numbers of a group over all ranks
  float eps;

  QkRows(const AttentionShape& shape, std::int64_t group_count, const Tensor& q, const Tensor& k, int ranks,
         float epsilon)
      : rows(shape.batch * shape.seq_len),
        row(shape.row()),
        queries(static_cast<std::int64_t>(shape.heads) * shape.head_dim),
        keys(static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim),
        q_size(qk_group(shape, group_count, 0).size),
        k_size(qk_group(shape, group_count, group_count - 1).size),
        query_groups(queries / q_size),
        groups(group_count),
        q_gain(q.f32()),
        k_gain(k.f32()),
        q_count(static_cast<float>(q_size * ranks)),
        k_count(static_cast<float>(k_size * ranks)),
        eps(epsilon) {}
};

/// The group of a query or key column, and where its gain is. A row's columns are counted in 32 bits: divisions by 64 made the
/// forward kernel 536 instructions in place of 368 (nvcc 13.0).
struct Column {
  std::int64_t group;
  const float* gain;
  float count;
};
__device__ __forceinline__ Column column_of(const QkRows& p, std::int64_t c) {
  const bool key = c >= p.queries;
  const auto in_part = static_cast<unsigned>(key ? c - p.queries : c);
  const auto size = static_cast<unsigned>(key ? p.k_size : p.q_size);
  const unsigned group = in_part / size, place = in_part - group * size;
  return {key ? p.query_groups + group : group, (key ? p.k_gain : p.q_gain) + place, key ? p.k_count : p.q_count};
}

__device__ __forceinline__ float rstd_of(float squares, float count, float eps) {
  return 1.0f / sqrtf(squares / count + eps);
}

/// sums (rows, groups): of x^2, or where dy is there of dy gain x.
template <int width>
__global__ void __launch_bounds__(sum_warps* warp_size)
    sums_kernel(GridDependency dependency, float* sums, const __nv_bfloat16* dy, const __nv_bfloat16* x, QkRows p) {
  dependency.wait();
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * sum_warps + threadIdx.y;
  if (item >= p.rows * p.groups) return;  // the whole warp
  const std::int64_t g = item % p.groups;
  const bool key = g >= p.query_groups;
  const std::int64_t size = key ? p.k_size : p.q_size;
  const std::int64_t begin = item / p.groups * p.row + (key ? p.queries + (g - p.query_groups) * size : g * size);
  const float* const gain = key ? p.k_gain : p.q_gain;
  float sum = 0;
  for (std::int64_t c = threadIdx.x * width; c < size; c += warp_size * width) {
    float value[width];
    load_pack(value, x + begin + c);
    if (dy == nullptr) {
#pragma unroll
      for (int k = 0; k < width; ++k) sum += value[k] * value[k];
      continue;
    }
    float gradient[width], factor[width];
    load_pack(gradient, dy + begin + c);
    load_pack(factor, gain + c);
#pragma unroll
    for (int k = 0; k < width; ++k) sum += gradient[k] * factor[k] * value[k];
  }
  sum = warp_sum(sum);
  if (threadIdx.x == 0) sums[item] = sum;
}

template <int width>
__global__ void qk_forward_kernel(GridDependency dependency, __nv_bfloat16* y, const __nv_bfloat16* x,
                                  const float* squares, QkRows p) {
  dependency.wait();
  const std::int64_t n = row_of_thread();
  if (n >= p.rows) return;
  for (std::int64_t c = threadIdx.x * width; c < p.row; c += blockDim.x * width) {
    float value[width];
    load_pack(value, x + n * p.row + c);
    if (c < p.queries + p.keys) {
      const Column column = column_of(p, c);
      const float rstd = rstd_of(squares[n * p.groups + column.group], column.count, p.eps);
      float gain[width];
      load_pack(gain, column.gain);
#pragma unroll
      for (int k = 0; k < width; ++k) value[k] *= rstd * gain[k];
    }
    store_pack(y + n * p.row + c, value);
  }
}

/// Block (x, y): rows x, x + gridDim.x, ..., the y-th `threads` packs of columns. partials: (gridDim.x, queries), then
/// (gridDim.x, keys).
template <int width>
__global__ void __launch_bounds__(threads)
    qk_backward_kernel(GridDependency dependency, __nv_bfloat16* dqkv, float* partials, const __nv_bfloat16* x,
                       const float* squares, const float* dots, QkRows p) {
  dependency.wait();
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.y) * threads + threadIdx.x) * width;
  if (c >= p.queries + p.keys) return;
  const Column column = column_of(p, c);
  float gain[width], dgain[width] = {};
  load_pack(gain, column.gain);
  for (std::int64_t n = blockIdx.x; n < p.rows; n += gridDim.x) {
    const float rstd = rstd_of(squares[n * p.groups + column.group], column.count, p.eps);
    const float mean = dots[n * p.groups + column.group] * rstd / column.count;  // of g xhat
    float value[width], gradient[width];
    load_pack(value, x + n * p.row + c);
    load_pack(gradient, dqkv + n * p.row + c);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const float xhat = value[k] * rstd;
      dgain[k] += gradient[k] * xhat;
      gradient[k] = rstd * (gradient[k] * gain[k] - xhat * mean);
    }
    store_pack(dqkv + n * p.row + c, gradient);
  }
  float* const target = c < p.queries ? partials + blockIdx.x * p.queries + c
                                      : partials + gridDim.x * p.queries + blockIdx.x * p.keys + (c - p.queries);
  store_pack(target, dgain);
}

/// Whether groups, rows and addresses let threads take packs of 8.
template <class... T>
bool in_packs(const QkRows& p, const T*... data) {
  return p.q_size % 8 == 0 && p.k_size % 8 == 0 && rows_in_packs<8>(p.row, data...) &&
         rows_in_packs<4>(p.q_size, p.q_gain, p.k_gain);
}

void sums(const Context& context, Tensor out, const __nv_bfloat16* dy, const __nv_bfloat16* x, const QkRows& p) {
  if (p.rows == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(p.rows * p.groups, sum_warps));
  launch(in_packs(p, dy, x) ? sums_kernel<8> : sums_kernel<1>, {blocks, dim3(warp_size, sum_warps), 0, context.stream},
         out.f32(), dy, x, p);
}

}  // namespace

template <>
void run(const Context& context, const QkSquares& op) {
  sums(context, op.squares, nullptr, bf16(op.x), {op.shape, op.squares.extent(1), Tensor{}, Tensor{}, 1, 0});
}

template <>
void run(const Context& context, const QkDots& op) {
  sums(context, op.dots, bf16(op.dqkv), bf16(op.x), {op.shape, op.dots.extent(1), op.q_gain, op.k_gain, 1, 0});
}

template <>
void run(const Context& context, const QkNormForward& op) {
  const QkRows p(op.shape, op.squares.extent(1), op.q_gain, op.k_gain, op.ranks, op.eps);
  if (p.rows == 0) return;
  const bool wide = in_packs(p, bf16(op.qkv), bf16(op.x));
  const RowBlocks blocks = row_blocks(p.rows, wide ? p.row / 8 : p.row);
  launch(wide ? qk_forward_kernel<8> : qk_forward_kernel<1>, {blocks.grid, blocks.block, 0, context.stream},
         bf16(op.qkv), bf16(op.x), op.squares.f32(), p);
}

template <>
void run(const Context& context, const QkNormBackward& op) {
  const QkRows p(op.shape, op.squares.extent(1), op.q_gain, op.k_gain, op.ranks, op.eps);
  if (p.rows == 0) return;
  const bool wide = in_packs(p, bf16(op.dqkv), bf16(op.x));
  const std::int64_t column_blocks = ceil_div<std::int64_t>(p.queries + p.keys, threads * (wide ? 8 : 1));
  // Four blocks for each multiprocessor, but at least 32 rows each.
  const std::int64_t wanted = std::max<std::int64_t>(4 * context.multiprocessors / column_blocks, 1);
  const std::int64_t shares = std::min(wanted, ceil_div<std::int64_t>(p.rows, 32));
  auto* const partials = static_cast<float*>(
      context.workspace->get(static_cast<std::size_t>(shares * (p.queries + p.keys)) * sizeof(float)));
  launch(wide ? qk_backward_kernel<8> : qk_backward_kernel<1>,
         {dim3(static_cast<unsigned>(shares), static_cast<unsigned>(column_blocks)), threads, 0, context.stream},
         bf16(op.dqkv), partials, bf16(op.x), op.squares.f32(), op.dots.f32(), p);
  add_partial_sums(context, op.q_dgain.f32(), partials, shares * p.query_groups, p.q_size, p.q_size);
  add_partial_sums(context, op.k_dgain.f32(), partials + shares * p.queries, shares * (p.groups - p.query_groups),
                   p.k_size, p.k_size);
}

}  // namespace vqlm::cuda
