#include "core/ops/matmul.h"

namespace vqlm {

void Matmul::check(DType activation) const {
  VQLM_ASSERT(a.dtype() == b.dtype() && (a.dtype() == activation || a.dtype() == DType::f32));
  VQLM_ASSERT(c.dtype() == a.dtype() || c.dtype() == DType::f32);
  VQLM_ASSERT(c.rank() == 2 && a.rank() == 2 && b.rank() == 2);
  const std::int64_t m = c.extent(0), n = c.extent(1), k = depth();
  VQLM_ASSERT(a.shape() == (ta == Transpose::yes ? Shape({k, m}) : Shape({m, k})));
  VQLM_ASSERT(b.shape() == (tb == Transpose::yes ? Shape({n, k}) : Shape({k, n})));
}

OpCost Matmul::cost() const {
  const double flops = 2.0 * static_cast<double>(c.numel()) * static_cast<double>(depth());
  return cost_of({a, b, accumulate == Accumulate::yes ? c : Tensor{}}, {c}, flops);
}

}  // namespace vqlm
