#include "core/ops/scatter_add_rows.h"

namespace vqlm {

void ScatterAddRows::check(DType /*a*/) const {
  check_dtype(DType::f32, {dtable, dout});
  check_dtype(DType::i32, {rows});
  VQLM_ASSERT(dout.rank() == 2 && dtable.rank() == 2 && dout.extent(0) == rows.numel());
  VQLM_ASSERT(dout.extent(1) == dtable.extent(1));
}

/// Of the table, the rows that are named.
OpCost ScatterAddRows::cost() const {
  return cost_of({rows, dout, dout}, {dout});
}

}  // namespace vqlm
