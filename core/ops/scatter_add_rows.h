// Rows added to those of a table in another order.
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// dtable (R, w) f32 accumulates dout's row i (w) f32 at its row rows[i]. rows (V) i32 in [0, R): no number twice.
struct ScatterAddRows {
  static constexpr std::string_view name = "scatter_add_rows";
  Tensor dtable;
  Tensor dout;
  Tensor rows;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
