#include "core/ops/swiglu.h"

namespace vqlm {
namespace {

void check_forward(DType a, const Tensor& y, const Tensor& gate_up) {
  check_dtype(a, {y, gate_up});
  VQLM_ASSERT(y.rank() == 2 && gate_up.shape() == Shape({y.extent(0), 2 * y.extent(1)}));
}

void check_backward(DType a, const Tensor& dgate_up, const Tensor& dy, const Tensor& gate_up) {
  check_dtype(a, {dgate_up});
  check_forward(a, dy, gate_up);
  VQLM_ASSERT(dgate_up.shape() == gate_up.shape());
}

}  // namespace

void SwigluForward::check(DType a) const {
  check_forward(a, y, gate_up);
}

OpCost SwigluForward::cost() const {
  return cost_of({gate_up}, {y});
}

void SwigluBackward::check(DType a) const {
  check_backward(a, dgate_up, dy, gate_up);
}

OpCost SwigluBackward::cost() const {
  return cost_of({dy, gate_up}, {dgate_up});
}

void GegluForward::check(DType a) const {
  check_forward(a, y, gate_up);
}

OpCost GegluForward::cost() const {
  return cost_of({gate_up}, {y});
}

void GegluBackward::check(DType a) const {
  check_backward(a, dgate_up, dy, gate_up);
}

OpCost GegluBackward::cost() const {
  return cost_of({dy, gate_up}, {dgate_up});
}

}  // namespace vqlm
