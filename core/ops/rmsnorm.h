// RMSNorm (Zhang, Sennrich, arXiv 1910.07467).
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// y (N, d) = x * rstd * gain, rstd (N) = 1 / sqrt(mean(x^2) + eps); both overwritten. Where `branch` (N, d) is present,
/// x + branch is normalised in place of x and written to sum (N, d), which may alias x or branch; sum is absent where
/// branch is. y, sum, x, branch: A (what is normalised is the stored, rounded sum); rstd and gain (d): f32.
struct RmsnormForward {
  static constexpr std::string_view name = "rmsnorm_forward";
  Tensor y;
  Tensor rstd;
  Tensor sum = {};
  Tensor x;
  Tensor branch = {};
  Tensor gain;
  float eps;

  void check(DType a) const;
  OpCost cost() const;
};

/// dgain (d) accumulates; dx (N, d) accumulates or is overwritten; dx may alias dy or x when overwritten. x is what was
/// normalised (sum, where there was a branch). dx, dy, x: A; dgain, gain, rstd: f32.
struct RmsnormBackward {
  static constexpr std::string_view name = "rmsnorm_backward";
  Tensor dx;
  Tensor dgain;
  Tensor dy;
  Tensor x;
  Tensor gain;
  Tensor rstd;
  Accumulate accumulate_dx;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
