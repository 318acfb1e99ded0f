#include "core/ops/elementwise.h"

namespace vqlm {

void AddColumnSums::check(DType a) const {
  check_dtype(DType::f32, {out});
  check_dtype(a, {x});
  VQLM_ASSERT(x.rank() == 2 && first >= 0 && first + out.numel() <= x.extent(1));
}

OpCost AddColumnSums::cost() const {
  return cost_of({out, x}, {out});
}

void AddBias::check(DType a) const {
  check_dtype(a, {x});
  check_dtype(DType::f32, {bias});
  VQLM_ASSERT(x.rank() == 2 && first >= 0 && first + bias.numel() <= x.extent(1));
}

OpCost AddBias::cost() const {
  const auto bytes = static_cast<double>(x.extent(0) * bias.numel()) * static_cast<double>(size_of(x.dtype()));
  return {.bytes_read = bytes + static_cast<double>(bias.bytes()), .bytes_written = bytes};
}

void Add::check(DType activation) const {
  check_dtype(activation, {out, a, b});
  VQLM_ASSERT(out.shape() == a.shape() && out.shape() == b.shape());
}

OpCost Add::cost() const {
  return cost_of({a, b}, {out});
}

void Scale::check(DType a) const {
  check_dtype(a, {x});
}

OpCost Scale::cost() const {
  return cost_of({x}, {x});
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
