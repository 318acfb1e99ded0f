// Rows added to those of a table in another order, or put in their place.
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

/// table (R, w) A: its row rows[i] becomes `from`'s row i (w) A. rows (n) i32 below R, no number twice; negative ones name no row.
struct CopyRows {
  static constexpr std::string_view name = "copy_rows";
  Tensor table;
  Tensor from;
  Tensor rows;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
