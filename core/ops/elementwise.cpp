#include "core/ops/elementwise.h"

namespace vqlm {

void AddColumnSums::check(DType a) const {
  check_dtype(DType::f32, {out});
  check_dtype(a, {x});
  VQLM_ASSERT(x.rank() == 2 && out.numel() <= x.extent(1));
}

OpCost AddColumnSums::cost() const {
  return cost_of({out, x}, {out});
}

void SwapAxes::check(DType a) const {
  check_dtype(a, {dst, src});
  VQLM_ASSERT(src.rank() == 3);
  VQLM_ASSERT(dst.shape() == Shape({src.extent(1), src.extent(0), src.extent(2)}));
}

OpCost SwapAxes::cost() const {
  return cost_of({src}, {dst});
}

}  // namespace vqlm
