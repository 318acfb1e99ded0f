// Filling, rounding, sums and re-layout. All are bound by memory; floors at 4.3 TB/s, times not measured:
//   op                  bytes                          shape                        floor
//   fill                4 n (f32), 2 n (bf16)          n = 124 M f32 (gradients)    115 us
//   round_to_activation 6 n                            n = 124 M                    173 us
//   add_column_sums     2 N C, partial sums in L2      N = 16,384, C = 512          4 us
//   add_bias            4 N C                          N = 16,384, C = 1536         23 us
//   add, scale          6 n, 4 n                       16,384 rows of 768           18 us, 12 us
//   swap_axes           4 R P C                        16,384 rows of 768           12 us
// Column sums take two stages: each block sums a tile of rows into the workspace, then the tiles are added in order.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/partial_sums.h"
#include "core/ops/elementwise.h"

namespace vqlm::cuda {
namespace {

template <class T, int width>
__global__ void fill_kernel(GridDependency dependency, T* x, std::int64_t n, std::int64_t head, T value) {
  dependency.wait();
  for_each_pack<width>(n, head, [=](auto pack_width, std::int64_t i) {
    Pack<T, decltype(pack_width)::value> pack;
#pragma unroll
    for (T& element : pack.at) element = value;
    *reinterpret_cast<decltype(pack)*>(x + i) = pack;
  });
}

template <class T>
void fill_with(const Context& context, T* x, std::int64_t n, T value) {
  constexpr int width = static_cast<int>(16 / sizeof(T));
  launch(fill_kernel<T, width>, {flat_blocks<width>(context, n), 256, 0, context.stream}, x, n,
         elements_before_packs<width>(n, x), value);
}

__global__ void round_kernel(GridDependency dependency, __nv_bfloat16* dst, const float* src, std::int64_t n,
                             std::int64_t head) {
  dependency.wait();
  for_each_pack<8>(n, head, [=](auto pack_width, std::int64_t i) {
    float x[decltype(pack_width)::value];
    load_pack(x, src + i);
    store_pack(dst + i, x);
  });
}

constexpr int sum_rows = 8;  // warps of a block of column_sums_kernel: rows that it reads at once

/// partials (row tiles, columns), columns in whole packs: the sums over the tile's rows of x (rows, stride); a block covers
/// 32 packs of columns.
template <int width>
__global__ void column_sums_kernel(GridDependency dependency, float* partials, const __nv_bfloat16* x,
                                   std::int64_t rows, std::int64_t stride, std::int64_t columns, std::int64_t tile) {
  dependency.wait();
  __shared__ float of_warp[sum_rows][width][warp_size];
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * warp_size + lane) * width;
  const std::int64_t begin = blockIdx.y * tile, end = min(rows, begin + tile);
  float sum[width] = {};
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t row = begin + warp; row < end; row += sum_rows) {
      float term[width];
      load_pack(term, x + row * stride + column);
#pragma unroll
      for (int k = 0; k < width; ++k) sum[k] += term[k];
    }
  }
#pragma unroll
  for (int k = 0; k < width; ++k) of_warp[warp][k][lane] = sum[k];
  __syncthreads();
  if (warp != 0 || column >= columns) return;
#pragma unroll
  for (int k = 0; k < width; ++k) {
    for (int w = 1; w < sum_rows; ++w) sum[k] += of_warp[w][k][lane];
  }
  store_pack(partials + blockIdx.y * columns + column, sum);
}

template <int width>
void column_sums(const Context& context, Tensor out, Tensor x, std::int64_t first) {
  const std::int64_t rows = x.extent(0), columns = ceil_div<std::int64_t>(out.numel(), width) * width;
  const std::int64_t column_blocks = ceil_div<std::int64_t>(columns, warp_size * width);
  // Four blocks of 8 warps for each multiprocessor, but at least 32 rows each.
  const std::int64_t wanted = std::max<std::int64_t>(4 * context.multiprocessors / column_blocks, 1);
  const std::int64_t tile = std::max<std::int64_t>(ceil_div(rows, std::min<std::int64_t>(wanted, 65535)), 32);
  const std::int64_t tiles = ceil_div(rows, tile);
  auto* const partials =
      static_cast<float*>(context.workspace->get(static_cast<std::size_t>(tiles * columns) * sizeof(float)));
  launch(column_sums_kernel<width>,
         {dim3(static_cast<unsigned>(column_blocks), static_cast<unsigned>(tiles)), dim3(warp_size, sum_rows), 0,
          context.stream},
         partials, bf16(x) + first, rows, x.extent(1), columns, tile);
  add_partial_sums(context, out.f32(), partials, tiles, columns, out.numel());
}

/// Columns [0, columns) of x (rows, stride) += bias.
template <int width>
__global__ void add_bias_kernel(GridDependency dependency, __nv_bfloat16* x, const float* bias, std::int64_t rows,
                                std::int64_t stride, std::int64_t columns) {
  dependency.wait();
  const std::int64_t row = row_of_thread();
  if (row >= rows) return;
  for (std::int64_t c = threadIdx.x * width; c < columns; c += blockDim.x * width) {
    float sum[width], addend[width];
    load_pack(sum, x + row * stride + c);
    load_pack(addend, bias + c);
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] += addend[k];
    store_pack(x + row * stride + c, sum);
  }
}

__global__ void add_kernel(GridDependency dependency, __nv_bfloat16* out, const __nv_bfloat16* a,
                           const __nv_bfloat16* b, std::int64_t n, std::int64_t head) {
  dependency.wait();
  for_each_pack<8>(n, head, [=](auto pack_width, std::int64_t i) {
    float x[decltype(pack_width)::value], y[decltype(pack_width)::value];
    load_pack(x, a + i);
    load_pack(y, b + i);
#pragma unroll
    for (int k = 0; k < decltype(pack_width)::value; ++k) x[k] += y[k];
    store_pack(out + i, x);
  });
}

__global__ void scale_kernel(GridDependency dependency, __nv_bfloat16* x, std::int64_t n, std::int64_t head,
                             float factor) {
  dependency.wait();
  for_each_pack<8>(n, head, [=](auto pack_width, std::int64_t i) {
    float y[decltype(pack_width)::value];
    load_pack(y, x + i);
#pragma unroll
    for (float& element : y) element *= factor;
    store_pack(x + i, y);
  });
}

/// Run i of the destination, `columns` elements, comes from run (i % outer) * inner + i / outer of the source.
template <int width>
__global__ void swap_axes_kernel(GridDependency dependency, __nv_bfloat16* dst, const __nv_bfloat16* src,
                                 std::int64_t outer, std::int64_t inner, std::int64_t columns) {
  dependency.wait();
  const std::int64_t run = row_of_thread();
  if (run >= outer * inner) return;
  const __nv_bfloat16* const from = src + (run % outer * inner + run / outer) * columns;
  __nv_bfloat16* const to = dst + run * columns;
  for (std::int64_t c = threadIdx.x * width; c < columns; c += blockDim.x * width) {
    using P = Pack<__nv_bfloat16, width>;
    *reinterpret_cast<P*>(to + c) = *reinterpret_cast<const P*>(from + c);
  }
}

}  // namespace

void fill(const Context& context, Tensor x, float value) {
  const std::int64_t n = x.numel();
  if (n == 0) return;
  switch (x.dtype()) {
    case DType::f32:
      return fill_with(context, x.f32(), n, value);
    case DType::i32:
      return fill_with(context, x.i32(), n, static_cast<std::int32_t>(value));
    case DType::bf16:
      return fill_with(context, bf16(x), n, __float2bfloat16_rn(value));
    default:
      VQLM_ASSERT(!"fill: f32, bf16 or i32");
  }
}

void round_to_activation(const Context& context, Tensor dst, Tensor src) {
  const std::int64_t n = src.numel();
  VQLM_ASSERT(dst.numel() == n);
  if (n == 0) return;
  launch(round_kernel, {flat_blocks<8>(context, n), 256, 0, context.stream}, bf16(dst), src.f32(), n,
         elements_before_packs<8>(n, bf16(dst), src.f32()));
}

template <>
void run(const Context& context, const AddColumnSums& op) {
  if (op.x.numel() == 0 || op.out.numel() == 0) return;
  // A pack that reaches beyond the last column stays in its row: all begin at multiples of 8.
  if (rows_in_packs<8>(op.x.extent(1), bf16(op.x) + op.first)) {
    column_sums<8>(context, op.out, op.x, op.first);
  } else {
    column_sums<1>(context, op.out, op.x, op.first);
  }
}

template <>
void run(const Context& context, const AddBias& op) {
  const std::int64_t rows = op.x.extent(0), stride = op.x.extent(1), columns = op.bias.numel();
  if (rows == 0 || columns == 0) return;
  const bool wide =
      columns % 8 == 0 && rows_in_packs<8>(stride, bf16(op.x) + op.first) && rows_in_packs<4>(columns, op.bias.f32());
  const RowBlocks blocks = row_blocks(rows, wide ? columns / 8 : columns);
  launch(wide ? add_bias_kernel<8> : add_bias_kernel<1>, {blocks.grid, blocks.block, 0, context.stream},
         bf16(op.x) + op.first, op.bias.f32(), rows, stride, columns);
}

template <>
void run(const Context& context, const Add& op) {
  const std::int64_t n = op.out.numel();
  if (n == 0) return;
  launch(add_kernel, {flat_blocks<8>(context, n), 256, 0, context.stream}, bf16(op.out), bf16(op.a), bf16(op.b), n,
         elements_before_packs<8>(n, bf16(op.out), bf16(op.a), bf16(op.b)));
}

template <>
void run(const Context& context, const Scale& op) {
  const std::int64_t n = op.x.numel();
  if (n == 0) return;
  launch(scale_kernel, {flat_blocks<8>(context, n), 256, 0, context.stream}, bf16(op.x), n,
         elements_before_packs<8>(n, bf16(op.x)), op.factor);
}

template <>
void run(const Context& context, const SwapAxes& op) {
  const std::int64_t outer = op.src.extent(0), inner = op.src.extent(1), columns = op.src.extent(2);
  if (op.src.numel() == 0) return;
  const bool wide = rows_in_packs<8>(columns, bf16(op.dst), bf16(op.src));
  const RowBlocks blocks = row_blocks(outer * inner, wide ? columns / 8 : columns);
  launch(wide ? swap_axes_kernel<8> : swap_axes_kernel<1>, {blocks.grid, blocks.block, 0, context.stream}, bf16(op.dst),
         bf16(op.src), outer, inner, columns);
}

}  // namespace vqlm::cuda
