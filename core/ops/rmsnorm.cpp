#include "core/ops/rmsnorm.h"

namespace vqlm {

void RmsnormForward::check(DType a) const {
  check_dtype(a, {y, sum, x, branch});
  check_dtype(DType::f32, {rstd, gain});
  VQLM_ASSERT(x.rank() == 2 && y.shape() == x.shape());
  VQLM_ASSERT(rstd.numel() == x.extent(0) && gain.numel() == x.extent(1));
  VQLM_ASSERT(static_cast<bool>(branch) == static_cast<bool>(sum));
  VQLM_ASSERT(!branch || (branch.shape() == x.shape() && sum.shape() == x.shape()));
}

OpCost RmsnormForward::cost() const {
  return cost_of({x, branch, gain}, {y, rstd, sum});
}

void RmsnormBackward::check(DType a) const {
  check_dtype(a, {dx, dy, x});
  check_dtype(DType::f32, {dgain, gain, rstd});
  VQLM_ASSERT(x.rank() == 2 && dx.shape() == x.shape() && dy.shape() == x.shape());
  VQLM_ASSERT(rstd.numel() == x.extent(0) && gain.numel() == x.extent(1) && dgain.numel() == x.extent(1));
  VQLM_ASSERT(accumulate_dx == Accumulate::no || dx.data() != dy.data());
}

OpCost RmsnormBackward::cost() const {
  return cost_of({dy, x, gain, rstd, dgain, accumulate_dx == Accumulate::yes ? dx : Tensor{}}, {dx, dgain});
}

}  // namespace vqlm
