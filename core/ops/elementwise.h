// Sums and re-layout.
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// out (C) f32 accumulates the sums of columns [first, first + C) of x (N, W) A.
struct AddColumnSums {
  static constexpr std::string_view name = "add_column_sums";
  Tensor out;
  Tensor x;
  std::int64_t first = 0;

  void check(DType a) const;
  OpCost cost() const;
};

/// Columns [first, first + C) of every row of x (N, W) A, in place, plus bias (C) f32.
struct AddBias {
  static constexpr std::string_view name = "add_bias";
  Tensor x;
  Tensor bias;
  std::int64_t first = 0;

  void check(DType a) const;
  OpCost cost() const;
};

/// out = a + b, all A and of one shape; out may be a or b.
struct Add {
  static constexpr std::string_view name = "add";
  Tensor out;
  Tensor a;
  Tensor b;

  void check(DType activation) const;
  OpCost cost() const;
};

/// x A, in place, times factor.
struct Scale {
  static constexpr std::string_view name = "scale";
  Tensor x;
  float factor;

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
