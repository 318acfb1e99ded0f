// Every stride-th column of a table's rows in another order, and the gradient back: the input embedding as the members'
// vectors of the VQ head. Bytes: with stride 1 the rows read and written once; with more, whole lines of 64 bytes are read
// for the numbers in them.
#include <algorithm>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"

namespace vqlm::cpu {
namespace {

void check(const Tensor& thinned, const Tensor& table, const Tensor& rows, std::int64_t stride) {
  VQLM_ASSERT(thinned.rank() == 2 && table.rank() == 2 && thinned.extent(0) == rows.numel() && stride >= 1);
  VQLM_ASSERT((thinned.extent(1) - 1) * stride < table.extent(1));
}

}  // namespace

void gather_columns(Tensor out, Tensor table, Tensor rows, std::int64_t stride, float scale) {
  check(out, table, rows, stride);
  const std::int64_t width = out.extent(1), columns = table.extent(1), table_rows = table.extent(0);
  float* const to = out.f32();
  const float* const from = table.f32();
  const std::int32_t* const row = rows.i32();
  parallel_blocks(rows.numel(), rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      VQLM_ASSERT(row[i] >= 0 && row[i] < table_rows);
      const float* const source = from + row[i] * columns;
      float* const target = to + i * width;
      if (stride == 1) {  // a loop that the compiler makes vectors of
        for (std::int64_t j = 0; j < width; ++j) target[j] = scale * source[j];
      } else {
        for (std::int64_t j = 0; j < width; ++j) target[j] = scale * source[j * stride];
      }
    }
  });
}

void scatter_add_columns(Tensor dtable, Tensor dout, Tensor rows, std::int64_t stride, float scale) {
  check(dout, dtable, rows, stride);
  const std::int64_t width = dout.extent(1), columns = dtable.extent(1), table_rows = dtable.extent(0);
  float* const to = dtable.f32();
  const float* const from = dout.f32();
  const std::int32_t* const row = rows.i32();
  parallel_blocks(rows.numel(), rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      VQLM_ASSERT(row[i] >= 0 && row[i] < table_rows);
      float* const target = to + row[i] * columns;
      const float* const source = from + i * width;
      if (stride == 1) {
        row_add(target, source, scale, width);
      } else {
        for (std::int64_t j = 0; j < width; ++j) target[j * stride] += scale * source[j];
      }
    }
  });
}

}  // namespace vqlm::cpu
