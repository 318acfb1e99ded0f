// Sums and re-layout.
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// out (C) accumulates the sums of the first C columns of x (N, W) A.
struct AddColumnSums {
  static constexpr std::string_view name = "add_column_sums";
  Tensor out;
  Tensor x;

  void check(DType a) const;
  OpCost cost() const;
};

/// dst (P, R, C) = src (R, P, C) A with its first two axes exchanged; overwritten.
struct SwapAxes {
  static constexpr std::string_view name = "swap_axes";
  Tensor dst;
  Tensor src;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
