// Every stride-th column of a table's rows in another order, and the gradient back: the input embedding as the members'
// vectors of the VQ head. A thread takes neighbouring columns of a row, 8 with stride 1 where shapes and addresses allow.
//
// Both are bound by memory. With stride 1 gathering moves 4 V w bytes, spreading 12 V w; with more, the lines in which the
// columns stand come whole: a sector of 32 bytes for each column from stride 16 (bf16) or 8 (f32) on. V 50,257, w 768: 154
// and 463 MB, floors 36 and 110 us at 4.3 TB/s; V 128,000, w 1,024, stride 4 of 4,096 columns: 1.3 and 4.7 GB, 0.3 and 1.1
// ms; not measured. No row of the table is named twice, so additions need no order.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"

namespace vqlm::cuda {
namespace {

/// The sizes of one call: (rows, width) of (table rows, columns).
struct Sizes {
  std::int64_t rows, width, columns, stride;
};

template <int width>
__global__ void gather_columns_kernel(__nv_bfloat16* out, const __nv_bfloat16* table,
                                      const std::int32_t* rows, Sizes sizes, float scale) {
  const std::int64_t i = row_of_thread();
  if (i >= sizes.rows) return;
  const __nv_bfloat16* const source = table + rows[i] * sizes.columns;
  for (std::int64_t j = threadIdx.x * width; j < sizes.width; j += blockDim.x * width) {
    float x[width];
    load_pack(x, source + j * sizes.stride);
#pragma unroll
    for (float& element : x) element *= scale;
    store_pack(out + i * sizes.width + j, x);
  }
}

template <int width>
__global__ void scatter_add_columns_kernel(float* dtable, const float* dout, const std::int32_t* rows,
                                           Sizes sizes, float scale) {
  const std::int64_t i = row_of_thread();
  if (i >= sizes.rows) return;
  float* const target = dtable + rows[i] * sizes.columns;
  for (std::int64_t j = threadIdx.x * width; j < sizes.width; j += blockDim.x * width) {
    float x[width], sum[width];
    load_pack(x, dout + i * sizes.width + j);
    load_pack(sum, target + j * sizes.stride);
#pragma unroll
    for (int k = 0; k < width; ++k) sum[k] += scale * x[k];
    store_pack(target + j * sizes.stride, sum);
  }
}

Sizes sizes_of(const Tensor& thinned, const Tensor& table, const Tensor& rows, std::int64_t stride) {
  VQLM_ASSERT(thinned.rank() == 2 && table.rank() == 2 && thinned.extent(0) == rows.numel() && stride >= 1);
  VQLM_ASSERT((thinned.extent(1) - 1) * stride < table.extent(1));
  return {rows.numel(), thinned.extent(1), table.extent(1), stride};
}

}  // namespace

void gather_columns(const Context& context, Tensor out, Tensor table, Tensor rows, std::int64_t stride,
                    float scale) {
  const Sizes sizes = sizes_of(out, table, rows, stride);
  if (out.numel() == 0) return;
  const bool wide =
      stride == 1 && rows_in_packs<8>(sizes.width, bf16(out)) && rows_in_packs<8>(sizes.columns, bf16(table));
  const RowBlocks blocks = row_blocks(sizes.rows, wide ? sizes.width / 8 : sizes.width);
  launch(wide ? gather_columns_kernel<8> : gather_columns_kernel<1>,
         {blocks.grid, blocks.block, 0, context.stream}, bf16(out), bf16(table), rows.i32(), sizes, scale);
}

void scatter_add_columns(const Context& context, Tensor dtable, Tensor dout, Tensor rows, std::int64_t stride,
                         float scale) {
  const Sizes sizes = sizes_of(dout, dtable, rows, stride);
  if (dout.numel() == 0) return;
  const bool wide = stride == 1 && rows_in_packs<4>(sizes.width, dout.f32()) &&
                    rows_in_packs<4>(sizes.columns, dtable.f32());
  const RowBlocks blocks = row_blocks(sizes.rows, wide ? sizes.width / 4 : sizes.width);
  launch(wide ? scatter_add_columns_kernel<4> : scatter_add_columns_kernel<1>,
         {blocks.grid, blocks.block, 0, context.stream}, dtable.f32(), dout.f32(), rows.i32(), sizes, scale);
}

}  // namespace vqlm::cuda
