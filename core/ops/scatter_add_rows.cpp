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

void CopyRows::check(DType a) const {
  check_dtype(a, {table, from});
  check_dtype(DType::i32, {rows});
  VQLM_ASSERT(table.rank() == 2 && from.numel() == rows.numel() * table.extent(1));
}

OpCost CopyRows::cost() const {
  return cost_of({rows, from}, {from});
}

}  // namespace vqlm
