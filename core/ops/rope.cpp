#include "core/ops/rope.h"

namespace vqlm {
namespace {

void check_rotation(DType a, const Tensor& x, const AttentionShape& shape, const RopePositions& positions) {
  check_dtype(a, {x});
  check_dtype(DType::f64, {positions.frequencies});
  VQLM_ASSERT(shape.head_dim > 0 && shape.head_dim % 2 == 0);
  VQLM_ASSERT(x.shape().numel() == shape.batch * shape.seq_len * shape.row());
  VQLM_ASSERT(positions.frequencies.numel() == shape.head_dim / 2);
}

/// The value heads are not touched.
OpCost cost_of_rotation(const Tensor& x, const AttentionShape& shape) {
  const double rotated =
      static_cast<double>(x.bytes()) * (shape.heads + shape.kv_heads) / (shape.heads + 2 * shape.kv_heads);
  return {.bytes_read = rotated, .bytes_written = rotated};
}

}  // namespace

void RopeForward::check(DType a) const {
  check_rotation(a, qkv, shape, positions);
}

OpCost RopeForward::cost() const {
  return cost_of_rotation(qkv, shape);
}

void RopeBackward::check(DType a) const {
  check_rotation(a, dqkv, shape, positions);
}

OpCost RopeBackward::cost() const {
  return cost_of_rotation(dqkv, shape);
}

}  // namespace vqlm
