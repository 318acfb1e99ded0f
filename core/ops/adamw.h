// The optimizer's ops: the global gradient norm, AdamW (Loshchilov, Hutter, arXiv 1711.05101), moving averages.
#pragma once

#include <cstdint>

#include "core/ops/op.h"

namespace vqlm {

/// One AdamW step's numbers; step counts from 1.
struct AdamWStep {
  float lr = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0;
  std::int64_t step = 1;
  float max_norm = 0;  // clip the global gradient norm to this; 0 = off
};

/// What an update is made of, apart from clipping: with g the clipped gradient,
///   m = keep_m m + add_m g,  v = keep_v v + add_v g^2,
///   param = keep_param param - step_size m / (root_scale sqrt(v) + eps).
struct AdamWCoefficients {
  float keep_m;      // beta1
  float add_m;       // 1 - beta1
  float keep_v;      // beta2
  float add_v;       // 1 - beta2
  float keep_param;  // 1 - lr * weight_decay
  float step_size;   // lr / (1 - beta1^step)
  float root_scale;  // 1 / sqrt(1 - beta2^step)
  float eps;
};

/// Computed in double, for every back end's kernel; step.step >= 1.
AdamWCoefficients adamw_coefficients(const AdamWStep& step);

/// out (1) f64 accumulates the sum of squares of x (n).
struct AddSumOfSquares {
  static constexpr std::string_view name = "add_sum_of_squares";
  Tensor out;
  Tensor x;

  void check(DType a) const;
  OpCost cost() const;
};

/// AdamW with decoupled decay over flat ranges (n): param, m, v in place. The gradient is first scaled by
/// min(1, max_norm / sqrt(norm_squared)) where step.max_norm > 0; norm_squared (1) f64 is the global one, and may be absent
/// where max_norm is 0. Where norm_squared is not finite nothing changes: the step is skipped without the host's help.
/// `rounded` (n) A, where present, is overwritten with the updated param (the copy that ops read where A is not f32;
/// absent where it is).
struct AdamW {
  static constexpr std::string_view name = "adamw";
  Tensor param;
  Tensor rounded = {};
  Tensor m;
  Tensor v;
  Tensor grad;
  Tensor norm_squared = {};
  AdamWStep step;

  void check(DType a) const;
  OpCost cost() const;
};

/// AdamW for some rows of a table (R, w): param, m and v change in the rows `rows` (U) i32 alone, no number twice, by grad's rows
/// (U, w) in that order; the rest, moments and all, stays as it is (the rule of SparseAdam). norm_squared, step and `rounded` (R,
/// w) as in AdamW.
struct AdamWRows {
  static constexpr std::string_view name = "adamw_rows";
  Tensor param;
  Tensor rounded = {};
  Tensor m;
  Tensor v;
  Tensor grad;
  Tensor rows;
  Tensor norm_squared = {};
  AdamWStep step;

  void check(DType a) const;
  OpCost cost() const;
};

/// average (n) = decay * average + (1 - decay) * x (n), in place; nothing changes where norm_squared (1) f64 is not finite,
/// as in AdamW.
struct MovingAverage {
  static constexpr std::string_view name = "moving_average";
  Tensor average;
  Tensor x;
  Tensor norm_squared;
  float decay;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
