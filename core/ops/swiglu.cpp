#include "core/ops/swiglu.h"

namespace vqlm {

void SwigluForward::check(DType a) const {
  check_dtype(a, {y, gate_up});
  VQLM_ASSERT(y.rank() == 2 && gate_up.shape() == Shape({y.extent(0), 2 * y.extent(1)}));
}

OpCost SwigluForward::cost() const {
  return cost_of({gate_up}, {y});
}

void SwigluBackward::check(DType a) const {
  check_dtype(a, {dgate_up, dy, gate_up});
  VQLM_ASSERT(dy.rank() == 2 && gate_up.shape() == Shape({dy.extent(0), 2 * dy.extent(1)}));
  VQLM_ASSERT(dgate_up.shape() == gate_up.shape());
}

OpCost SwigluBackward::cost() const {
  return cost_of({dy, gate_up}, {dgate_up});
}

}  // namespace vqlm
