// Rows added to those of a table in another order: the gradient of the input embedding as the members' vectors of the VQ
// head. 12 bytes a number: the rows are read, the table's read and written.
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"

namespace vqlm::cpu {

void scatter_add_rows(Tensor dtable, Tensor dout, Tensor rows) {
  VQLM_ASSERT(dout.rank() == 2 && dtable.rank() == 2 && dout.extent(0) == rows.numel());
  VQLM_ASSERT(dout.extent(1) == dtable.extent(1));
  const std::int64_t width = dout.extent(1), table_rows = dtable.extent(0);
  float* const to = dtable.f32();
  const float* const from = dout.f32();
  const std::int32_t* const row = rows.i32();
  parallel_blocks(rows.numel(), rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      VQLM_ASSERT(row[i] >= 0 && row[i] < table_rows);
      row_add(to + row[i] * width, from + i * width, 1.0f, width);
    }
  });
}

}  // namespace vqlm::cpu
