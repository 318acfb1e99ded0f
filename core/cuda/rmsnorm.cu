// RMSNorm (arXiv 1910.07467), with the residual sum in front of it. With xhat = x rstd and g = dy gain:
//   dx = rstd (g - xhat mean(g xhat)),  dgain = sum over rows of dy xhat.
//
// Bound by memory. Bytes for each element: forward 8 (x, branch, sum, y; 4 without a branch), backward 6 (dy, x, dx; 8 where
// dx accumulates); about 6 and 12 operations. N = 16,384, d = 768: forward 101 MB, 23 us at 4.3 TB/s; backward 75 MB, 18 us,
// and partial gain gradients of at most 4 * multiprocessors rows (1.6 MB on an H200), which stay in L2; not measured.
//
// A row is read once and kept in registers as it was, up to 32 elements a thread: all its loads are issued before the first
// arithmetic, so that it waits for memory once. d <= 1,024 is one warp a row and four rows a block, without barriers between
// rows; wider rows take a block of as many warps as they need. Blocks stride over the rows. gain lies in shared memory. dgain:
// each thread sums its rows in registers, a block its warps in order; add_partial_sums adds the blocks in order. Rows that do
// not begin at 16-byte boundaries, and those of more than 12,288 elements, are rmsnorm_by_element.cu's.
#include <algorithm>

#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/partial_sums.h"
#include "core/cuda/rmsnorm_by_element.h"
#include "core/ops/rmsnorm.h"

namespace vqlm::cuda {
namespace {

constexpr int width = 8;  // elements of a pack

/// Whose a row is: a warp's, and a block has rows_per_block of them, or a block's.
enum class RowOwner { warp, block };
constexpr int rows_per_block = 4;
constexpr int max_packs = 4;  // of a thread
constexpr int max_threads(RowOwner owner) {
  return owner == RowOwner::warp ? warp_size * rows_per_block : 384;  // which leaves 168 registers a thread
}
/// At once on a multiprocessor: 128 registers a thread for three packs, 168 for four.
constexpr int min_backward_blocks(int packs, RowOwner owner) {
  return owner == RowOwner::block ? 1 : packs == 3 ? 4 : 3;
}
constexpr std::int64_t max_columns = width * max_packs * max_threads(RowOwner::block);

template <RowOwner owner>
__device__ __forceinline__ float row_sum(float x) {
  return owner == RowOwner::warp ? warp_sum(x) : block_sum(x);
}

/// The block's first row, plus threadIdx.y; then every row_step().
__device__ __forceinline__ unsigned first_row() {
  return blockIdx.x * blockDim.y + threadIdx.y;
}
__device__ __forceinline__ unsigned row_step() {
  return gridDim.x * blockDim.y;
}

/// A thread's packs of one row of `columns`, in a block of (threads of a row, rows). Each warp has a part of the row, so that
/// its packs are known distances apart. Packs that are not there are zeros, which add nothing to sums, and are not stored.
template <int count>
struct RowPacks {
  int columns;
  int first;  // number of this thread's first pack
  int end;    // of the warp's part, a column

  __device__ __forceinline__ explicit RowPacks(int of_columns) : columns(of_columns) {
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int packs = ceil_div(of_columns, width * static_cast<int>(blockDim.x)) * warp_size;
    first = warp * packs + lane;
    end = min(columns, (warp + 1) * packs * width);
  }
  __device__ __forceinline__ int number(int p) const { return first + p * warp_size; }
  __device__ __forceinline__ int column(int p) const { return number(p) * width; }
  __device__ __forceinline__ bool has(int p) const { return column(p) < end; }

  /// As in memory. Waits for nothing, so that more loads may follow at once.
  __device__ __forceinline__ void load(uint4 (&raw)[count], const __nv_bfloat16* row) const {
#pragma unroll
    for (int p = 0; p < count; ++p) raw[p] = has(p) ? load8(row + column(p)) : uint4{};
  }
  __device__ __forceinline__ void store(__nv_bfloat16* row, int p, const float (&x)[width]) const {
    if (has(p)) store8(row + column(p), x);
  }

  /// A row of floats in shared memory: the first halves of all packs, then the second ones, so that the 16-byte accesses of
  /// neighbouring threads are neighbours. Pack p of this thread; zeros where it has none.
  __device__ __forceinline__ void load_shared(float (&x)[width], const float* row, int p) const {
    float4 a{}, b{};
    if (has(p)) {
      a = reinterpret_cast<const float4*>(row)[number(p)];
      b = reinterpret_cast<const float4*>(row + columns / 2)[number(p)];
    }
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  }
  __device__ __forceinline__ void store_shared(float* row, int p, const float (&x)[width]) const {
    if (!has(p)) return;
    reinterpret_cast<float4*>(row)[number(p)] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(row + columns / 2)[number(p)] = make_float4(x[4], x[5], x[6], x[7]);
  }
  /// The block's threads together; a barrier is at its end.
  __device__ __forceinline__ void fill_shared(float* row, const float* source) const {
    const int threads = static_cast<int>(blockDim.x * blockDim.y);
    const int half = columns / 2;
    for (int c = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); c < columns; c += threads) {
      row[c % width / 4 * half + c / width * 4 + c % 4] = source[c];
    }
    __syncthreads();
  }
};

/// of_column: 1 / columns.
template <int count, RowOwner owner, bool has_branch>
__global__ void __launch_bounds__(max_threads(owner))
    rmsnorm_forward_kernel(GridDependency dependency, __nv_bfloat16* y, float* rstd, __nv_bfloat16* sum,
                           const __nv_bfloat16* x, const __nv_bfloat16* branch, const float* gain, unsigned rows,
                           int columns, float of_column, float eps) {
  dependency.wait();
  const RowPacks<count> packs(columns);
  auto* const row_gain = dynamic_shared<float>();
  packs.fill_shared(row_gain, gain);
  for (unsigned row = first_row(); row < rows; row += row_step()) {
    const std::int64_t begin = static_cast<std::int64_t>(row) * columns;
    uint4 raw[count], raw_branch[count];
    packs.load(raw, x + begin);
    if constexpr (has_branch) packs.load(raw_branch, branch + begin);
    __syncwarp();  // keeps nvcc from delaying loads behind arithmetic, to save registers
    float row_x[count][width];
    float squares = 0;
#pragma unroll
    for (int p = 0; p < count; ++p) {
      unpack8(row_x[p], raw[p]);
      if constexpr (has_branch) {
        float addend[width];
        unpack8(addend, raw_branch[p]);
#pragma unroll
        for (int k = 0; k < width; ++k) {
          // Normalised is what is stored, so that backward finds the same x.
          row_x[p][k] = to_float(from_float<__nv_bfloat16>(row_x[p][k] + addend[k]));
        }
        packs.store(sum + begin, p, row_x[p]);
      }
#pragma unroll
      for (int k = 0; k < width; ++k) squares += row_x[p][k] * row_x[p][k];
    }
    // The quotient and root in full precision: once a row.
    const float scale = 1.0f / sqrtf(row_sum<owner>(squares) * of_column + eps);
    if (threadIdx.x == 0) rstd[row] = scale;
#pragma unroll
    for (int p = 0; p < count; ++p) {
      float factor[width];
      packs.load_shared(factor, row_gain, p);
#pragma unroll
      for (int k = 0; k < width; ++k) factor[k] *= row_x[p][k] * scale;
      packs.store(y + begin, p, factor);
    }
  }
}

/// partial_dgain (blocks, columns): the sum over the block's rows. of_column: 1 / columns.
template <int count, RowOwner owner, bool accumulate>
__global__ void __launch_bounds__(max_threads(owner), min_backward_blocks(count, owner))
    rmsnorm_backward_kernel(GridDependency dependency, __nv_bfloat16* dx, float* partial_dgain, const __nv_bfloat16* dy,
                            const __nv_bfloat16* x, const float* gain, const float* rstd, unsigned rows, int columns,
                            float of_column) {
  dependency.wait();
  const RowPacks<count> packs(columns);
  auto* const row_gain = dynamic_shared<float>();
  packs.fill_shared(row_gain, gain);
  float dgain[count][width] = {};
  for (unsigned row = first_row(); row < rows; row += row_step()) {
    const std::int64_t begin = static_cast<std::int64_t>(row) * columns;
    uint4 raw_dy[count], raw_x[count], raw_dx[count];
    const float scale = rstd[row];
    packs.load(raw_dy, dy + begin);
    packs.load(raw_x, x + begin);
    if constexpr (accumulate) packs.load(raw_dx, dx + begin);
    __syncwarp();  // as in forward
    // g and xhat are made twice from what was loaded: that takes fewer registers than keeping them.
    float dot = 0;
#pragma unroll
    for (int p = 0; p < count; ++p) {
      float of_dy[width], xhat[width], factor[width];
      unpack8(of_dy, raw_dy[p]);
      unpack8(xhat, raw_x[p]);
      packs.load_shared(factor, row_gain, p);
#pragma unroll
      for (int k = 0; k < width; ++k) {
        const float product = of_dy[k] * (xhat[k] * scale);
        dgain[p][k] += product;
        dot += product * factor[k];
      }
    }
    const float mean = row_sum<owner>(dot) * of_column;
#pragma unroll
    for (int p = 0; p < count; ++p) {
      float of_dy[width], xhat[width], factor[width], result[width] = {};
      unpack8(of_dy, raw_dy[p]);
      unpack8(xhat, raw_x[p]);
      packs.load_shared(factor, row_gain, p);
      if constexpr (accumulate) unpack8(result, raw_dx[p]);
#pragma unroll
      for (int k = 0; k < width; ++k) result[k] += scale * (of_dy[k] * factor[k] - xhat[k] * scale * mean);
      packs.store(dx + begin, p, result);
    }
  }

  // The block's rows in order, in place of gain.
  float* const sums = row_gain;
  for (unsigned turn = 0; turn < blockDim.y; ++turn) {
    __syncthreads();
    if (threadIdx.y != turn) continue;
#pragma unroll
    for (int p = 0; p < count; ++p) {
      float total[width] = {};
      if (turn > 0) packs.load_shared(total, sums, p);
#pragma unroll
      for (int k = 0; k < width; ++k) total[k] += dgain[p][k];
      packs.store_shared(sums, p, total);
    }
  }
  __syncthreads();
  if (threadIdx.y != 0) return;
#pragma unroll
  for (int p = 0; p < count; ++p) {
    float total[width];
    packs.load_shared(total, sums, p);
    if (packs.has(p)) store_pack(partial_dgain + blockIdx.x * columns + packs.column(p), total);
  }
}

struct RowLaunch {
  RowOwner owner;
  dim3 grid, block;
  std::size_t shared_bytes;
};

/// Blocks that stride over the rows, so many that each multiprocessor has `threads` threads.
RowLaunch rows_launch(const Context& context, std::int64_t rows, std::int64_t columns, std::int64_t threads) {
  const std::int64_t of_row = ceil_div<std::int64_t>(columns, width * max_packs * warp_size) * warp_size;
  const RowOwner owner = of_row == warp_size ? RowOwner::warp : RowOwner::block;
  const std::int64_t in_block = owner == RowOwner::warp ? rows_per_block : 1;
  const std::int64_t most =
      std::max(context.multiprocessors, 1) * std::max<std::int64_t>(threads / (of_row * in_block), 1);
  return {owner, dim3(static_cast<unsigned>(std::min(ceil_div(rows, in_block), most))),
          dim3(static_cast<unsigned>(of_row), static_cast<unsigned>(in_block)),
          static_cast<std::size_t>(columns) * sizeof(float)};
}

/// Whether a warp has a row in three packs a thread.
bool in_three_packs(std::int64_t columns) {
  return columns <= 3 * width * warp_size;
}

}  // namespace

template <>
void run(const Context& context, const RmsnormForward& op) {
  const std::int64_t rows = op.x.extent(0), columns = op.x.extent(1);
  if (op.x.numel() == 0) return;
  const bool in_packs = rows_in_packs<8>(columns, bf16(op.y), bf16(op.sum), bf16(op.x), bf16(op.branch));
  if (!in_packs || columns > max_columns) return rmsnorm_forward_by_element(context, op);
  const RowLaunch shape = rows_launch(context, rows, columns, 1024);
  const auto start = [&](auto with_branch, auto without) {
    launch(op.branch ? with_branch : without, {shape.grid, shape.block, shape.shared_bytes, context.stream}, bf16(op.y),
           op.rstd.f32(), bf16(op.sum), bf16(op.x), bf16(op.branch), op.gain.f32(), static_cast<unsigned>(rows),
           static_cast<int>(columns), 1.0f / static_cast<float>(columns), op.eps);
  };
  constexpr auto warp = RowOwner::warp, block = RowOwner::block;
  if (shape.owner == block)
    return start(rmsnorm_forward_kernel<4, block, true>, rmsnorm_forward_kernel<4, block, false>);
  if (!in_three_packs(columns))
    return start(rmsnorm_forward_kernel<4, warp, true>, rmsnorm_forward_kernel<4, warp, false>);
  start(rmsnorm_forward_kernel<3, warp, true>, rmsnorm_forward_kernel<3, warp, false>);
}

template <>
void run(const Context& context, const RmsnormBackward& op) {
  const std::int64_t rows = op.x.extent(0), columns = op.x.extent(1);
  if (op.x.numel() == 0) return;
  const bool in_packs = rows_in_packs<8>(columns, bf16(op.dx), bf16(op.dy), bf16(op.x));
  if (!in_packs || columns > max_columns) return rmsnorm_backward_by_element(context, op);
  // What the kernels' registers let run at once: up to 128 a thread, and 168 where a row is four packs of a thread.
  const bool narrow = in_three_packs(columns);
  const RowLaunch shape = rows_launch(context, rows, columns, narrow ? 512 : 384);
  const std::int64_t blocks = shape.grid.x;
  auto* const partials =
      static_cast<float*>(context.workspace->get(static_cast<std::size_t>(blocks * columns) * sizeof(float)));
  const auto start = [&](auto accumulating, auto overwriting) {
    launch(op.accumulate_dx == Accumulate::yes ? accumulating : overwriting,
           {shape.grid, shape.block, shape.shared_bytes, context.stream}, bf16(op.dx), partials, bf16(op.dy),
           bf16(op.x), op.gain.f32(), op.rstd.f32(), static_cast<unsigned>(rows), static_cast<int>(columns),
           1.0f / static_cast<float>(columns));
    add_partial_sums(context, op.dgain.f32(), partials, blocks, columns, columns);
  };
  constexpr auto warp = RowOwner::warp, block = RowOwner::block;
  if (shape.owner == block)
    return start(rmsnorm_backward_kernel<4, block, true>, rmsnorm_backward_kernel<4, block, false>);
  if (!narrow) return start(rmsnorm_backward_kernel<4, warp, true>, rmsnorm_backward_kernel<4, warp, false>);
  start(rmsnorm_backward_kernel<3, warp, true>, rmsnorm_backward_kernel<3, warp, false>);
}

}  // namespace vqlm::cuda
