#include "core/ops/silu.h"

namespace vqlm {

void SiluResidualForward::check(DType a) const {
  check_dtype(a, {y, x, z});
  VQLM_ASSERT(y.shape() == x.shape() && z.shape() == x.shape());
}

OpCost SiluResidualForward::cost() const {
  return cost_of({x, z}, {y});
}

void SiluResidualBackward::check(DType a) const {
  check_dtype(a, {dz, dy, z});
  VQLM_ASSERT(dz.shape() == dy.shape() && z.shape() == dy.shape());
}

OpCost SiluResidualBackward::cost() const {
  return cost_of({dy, z}, {dz});
}

}  // namespace vqlm
