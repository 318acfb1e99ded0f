// Rows added to those of a table in another order: the gradient of the input embedding as the members' vectors of the VQ
// head. 12 bytes a number: the rows are read, the table's read and written.
#include "core/ops/scatter_add_rows.h"

#include <algorithm>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"

namespace vqlm::cpu {

template <>
void run(const ScatterAddRows& op) {
  const std::int64_t width = op.dout.extent(1), table_rows = op.dtable.extent(0);
  float* const to = op.dtable.f32();
  const float* const from = op.dout.f32();
  const std::int32_t* const row = op.rows.i32();
  parallel_blocks(op.rows.numel(), rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      VQLM_ASSERT(row[i] >= 0 && row[i] < table_rows);
      row_add(to + row[i] * width, from + i * width, 1.0f, width);
    }
  });
}

template <>
void run(const CopyRows& op) {
  const std::int64_t width = op.table.extent(1), table_rows = op.table.extent(0);
  float* const to = op.table.f32();
  const float* const from = op.from.f32();
  const std::int32_t* const row = op.rows.i32();
  parallel_blocks(op.rows.numel(), rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      VQLM_ASSERT(row[i] < table_rows);
      if (row[i] >= 0) std::copy_n(from + i * width, width, to + row[i] * width);
    }
  });
}

}  // namespace vqlm::cpu
