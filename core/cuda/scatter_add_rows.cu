// Rows added to those of a table in another order: the gradient of the input embedding as the members' vectors of the VQ
// head. A thread takes neighbouring columns, 4 where width and addresses allow, of 4 rows, whose loads are under way together.
//
// Bound by memory: 12 V w bytes; V 50,257, w 768: 463 MB, floor 110 us at 4.3 TB/s; not measured. No row of the table is
// named twice, so additions need no order, and a row may be read before another is written. Copied rows: 4 n w bytes.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/scatter_add_rows.h"

namespace vqlm::cuda {
namespace {

constexpr int rows_of_thread = 4;

/// The rows of the table that belong to a thread's rows i, i + 1 ..; -1 behind the last one.
__device__ __forceinline__ void load_rows(std::int64_t (&row)[rows_of_thread], const std::int32_t* rows, std::int64_t i,
                                          std::int64_t count) {
#pragma unroll
  for (int r = 0; r < rows_of_thread; ++r) row[r] = i + r < count ? rows[i + r] : -1;
}

template <int pack>
__global__ void scatter_add_rows_kernel(GridDependency dependency, float* dtable, const float* dout,
                                        const std::int32_t* rows, std::int64_t count, std::int64_t width) {
  dependency.wait();
  const std::int64_t i = row_of_thread() * rows_of_thread;
  std::int64_t row[rows_of_thread];
  load_rows(row, rows, i, count);
  for (std::int64_t j = threadIdx.x * pack; j < width; j += blockDim.x * pack) {
    float x[rows_of_thread][pack] = {}, sum[rows_of_thread][pack] = {};
#pragma unroll
    for (int r = 0; r < rows_of_thread; ++r) {
      if (row[r] < 0) continue;
      load_pack(x[r], dout + (i + r) * width + j);
      load_pack(sum[r], dtable + row[r] * width + j);
    }
#pragma unroll
    for (int r = 0; r < rows_of_thread; ++r) {
      if (row[r] < 0) continue;
#pragma unroll
      for (int k = 0; k < pack; ++k) sum[r][k] += x[r][k];
      store_pack(dtable + row[r] * width + j, sum[r]);
    }
  }
}

template <int pack>
__global__ void copy_rows_kernel(GridDependency dependency, __nv_bfloat16* table, const __nv_bfloat16* from,
                                 const std::int32_t* rows, std::int64_t count, std::int64_t width) {
  dependency.wait();
  const std::int64_t i = row_of_thread() * rows_of_thread;
  std::int64_t row[rows_of_thread];
  load_rows(row, rows, i, count);
  using P = Pack<__nv_bfloat16, pack>;
  for (std::int64_t j = threadIdx.x * pack; j < width; j += blockDim.x * pack) {
    P x[rows_of_thread] = {};
#pragma unroll
    for (int r = 0; r < rows_of_thread; ++r) {
      if (row[r] >= 0) x[r] = *reinterpret_cast<const P*>(from + (i + r) * width + j);
    }
#pragma unroll
    for (int r = 0; r < rows_of_thread; ++r) {
      if (row[r] >= 0) *reinterpret_cast<P*>(table + row[r] * width + j) = x[r];
    }
  }
}

}  // namespace

template <>
void run(const Context& context, const ScatterAddRows& op) {
  if (op.dout.numel() == 0) return;
  const std::int64_t count = op.dout.extent(0), width = op.dout.extent(1);
  const bool wide = rows_in_packs<4>(width, op.dout.f32(), op.dtable.f32());
  const RowBlocks blocks = row_blocks(ceil_div<std::int64_t>(count, rows_of_thread), wide ? width / 4 : width);
  launch(wide ? scatter_add_rows_kernel<4> : scatter_add_rows_kernel<1>, {blocks.grid, blocks.block, 0, context.stream},
         op.dtable.f32(), op.dout.f32(), op.rows.i32(), count, width);
}

template <>
void run(const Context& context, const CopyRows& op) {
  if (op.from.numel() == 0) return;
  const std::int64_t count = op.rows.numel(), width = op.table.extent(1);
  const bool wide = rows_in_packs<8>(width, bf16(op.from), bf16(op.table));
  const RowBlocks blocks = row_blocks(ceil_div<std::int64_t>(count, rows_of_thread), wide ? width / 8 : width);
  launch(wide ? copy_rows_kernel<8> : copy_rows_kernel<1>, {blocks.grid, blocks.block, 0, context.stream},
         bf16(op.table), bf16(op.from), op.rows.i32(), count, width);
}

}  // namespace vqlm::cuda
