// Matrix products.
#pragma once

#include "core/ops/op.h"

namespace vqlm {

enum class Transpose { no, yes };

/// c (M, N) = op(a) (M, K) op(b) (K, N), added to c where accumulate is yes. a is stored (K, M) where ta is yes, b
/// (N, K) where tb is yes. a and b are both A or both f32; c is A or f32, and f32 where they are.
struct Matmul {
  static constexpr std::string_view name = "matmul";
  Tensor c;
  Tensor a;
  Tensor b;
  Transpose ta = Transpose::no;
  Transpose tb = Transpose::no;
  Accumulate accumulate;

  /// K.
  std::int64_t depth() const { return a.extent(ta == Transpose::yes ? 0 : 1); }

  void check(DType activation) const;
  OpCost cost() const;
};

}  // namespace vqlm
