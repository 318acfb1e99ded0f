#include "core/ops/adamw.h"

#include <cmath>

namespace vqlm {

AdamWCoefficients adamw_coefficients(const AdamWStep& step) {
  VQLM_ASSERT(step.step >= 1);
  const double beta1 = step.beta1, beta2 = step.beta2, lr = step.lr;
  const auto steps = static_cast<double>(step.step);
  return {.keep_m = step.beta1,
          .add_m = static_cast<float>(1 - beta1),
          .keep_v = step.beta2,
          .add_v = static_cast<float>(1 - beta2),
          .keep_param = static_cast<float>(1 - lr * static_cast<double>(step.weight_decay)),
          .step_size = static_cast<float>(lr / (1 - std::pow(beta1, steps))),
          .root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, steps))),
          .eps = step.eps};
}

void AddSumOfSquares::check(DType /*a*/) const {
  check_dtype(DType::f64, {out});
  check_dtype(DType::f32, {x});
  VQLM_ASSERT(out.numel() == 1);
}

OpCost AddSumOfSquares::cost() const {
  return cost_of({x}, {out});
}

void AdamW::check(DType a) const {
  check_dtype(DType::f32, {param, m, v, grad});
  check_dtype(DType::f64, {norm_squared});
  const std::int64_t n = param.numel();
  VQLM_ASSERT(m.numel() == n && v.numel() == n && grad.numel() == n);
  VQLM_ASSERT(!rounded || (a != DType::f32 && rounded.dtype() == a && rounded.numel() == n));
  VQLM_ASSERT(norm_squared.numel() == 1 || (!norm_squared && step.max_norm == 0));
}

OpCost AdamW::cost() const {
  return cost_of({param, m, v, grad, norm_squared}, {param, m, v, rounded});
}

void AdamWRows::check(DType a) const {
  check_dtype(DType::f32, {param, m, v, grad});
  check_dtype(DType::f64, {norm_squared});
  check_dtype(DType::i32, {rows});
  VQLM_ASSERT(param.rank() == 2 && m.numel() == param.numel() && v.numel() == param.numel());
  VQLM_ASSERT(grad.numel() == rows.numel() * param.extent(1));
  VQLM_ASSERT(!rounded || (a != DType::f32 && rounded.dtype() == a && rounded.numel() == param.numel()));
  VQLM_ASSERT(norm_squared.numel() == 1 || (!norm_squared && step.max_norm == 0));
}

/// Of the table and its moments, the rows that are named.
OpCost AdamWRows::cost() const {
  OpCost cost = cost_of({rows, grad, grad, grad, grad}, {grad, grad, grad});
  if (rounded) cost.bytes_written += static_cast<double>(grad.bytes()) / 2;
  return cost;
}

void MovingAverage::check(DType /*a*/) const {
  check_dtype(DType::f32, {average, x});
  check_dtype(DType::f64, {norm_squared});
  VQLM_ASSERT(x.numel() == average.numel() && norm_squared.numel() == 1);
}

OpCost MovingAverage::cost() const {
  return cost_of({average, x, norm_squared}, {average});
}

}  // namespace vqlm
