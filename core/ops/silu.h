// A residual branch of SiLU (Elfwing et al., arXiv 1702.03118): what stands between a hidden state and the head that reads it
// for a later token (core/model/head/future_heads.h).
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// y = x + silu(z), silu(z) = z sigmoid(z); overwritten; all A and of one shape; y may be x or z.
struct SiluResidualForward {
  static constexpr std::string_view name = "silu_residual_forward";
  Tensor y;
  Tensor x;
  Tensor z;

  void check(DType a) const;
  OpCost cost() const;
};

/// dz = dy silu'(z), overwritten; all A and of one shape; dz may be dy or z. The gradient of x is dy itself.
struct SiluResidualBackward {
  static constexpr std::string_view name = "silu_residual_backward";
  Tensor dz;
  Tensor dy;
  Tensor z;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
