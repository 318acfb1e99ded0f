#include "core/ops/muon.h"

namespace vqlm {

void MuonMomentum::check(DType /*a*/) const {
  check_dtype(DType::f32, {m, direction, grad});
  check_dtype(DType::f64, {norm_squared});
  VQLM_ASSERT(direction.numel() == m.numel() && grad.numel() == m.numel() && norm_squared.numel() == 1);
}

OpCost MuonMomentum::cost() const {
  return cost_of({m, grad, norm_squared}, {m, direction});
}

void AddScaled::check(DType a) const {
  VQLM_ASSERT((out.dtype() == a || out.dtype() == DType::f32) && (x.dtype() == a || x.dtype() == DType::f32));
  check_dtype(DType::f32, {y});
  check_dtype(DType::f64, {norm_squared});
  VQLM_ASSERT(x.numel() == out.numel() && (!y || y.numel() == out.numel()));
  VQLM_ASSERT(!norm_squared || norm_squared.numel() == 1);
}

OpCost AddScaled::cost() const {
  return cost_of({x, y, norm_squared}, {out});
}

void MuonUpdate::check(DType a) const {
  check_dtype(DType::f32, {param, direction});
  check_dtype(DType::f64, {norm_squared});
  VQLM_ASSERT(direction.numel() == param.numel() && norm_squared.numel() == 1);
  VQLM_ASSERT(!rounded || (a != DType::f32 && rounded.dtype() == a && rounded.numel() == param.numel()));
}

OpCost MuonUpdate::cost() const {
  return cost_of({param, direction, norm_squared}, {param, rounded});
}

}  // namespace vqlm
