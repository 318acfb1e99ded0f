#include "core/ops/qk_norm.h"

namespace vqlm {
namespace {

void check_rows(DType a, const AttentionShape& shape, const Tensor& x) {
  check_dtype(a, {x});
  VQLM_ASSERT(shape.kv_heads > 0 && shape.head_dim > 0);
  VQLM_ASSERT(x.shape().numel() == shape.batch * shape.seq_len * shape.row());
}

void check_sums(const AttentionShape& shape, const Tensor& sums) {
  check_dtype(DType::f32, {sums});
  VQLM_ASSERT(sums.rank() == 2 && sums.extent(0) == shape.batch * shape.seq_len);
  VQLM_ASSERT(sums.extent(1) == 2 || sums.extent(1) == shape.heads + shape.kv_heads);
}

/// Gains of the first query group's and the first key group's size.
void check_gains(const AttentionShape& shape, std::int64_t groups, const Tensor& q, const Tensor& k) {
  check_dtype(DType::f32, {q, k});
  VQLM_ASSERT(q.numel() == qk_group(shape, groups, 0).size && k.numel() == qk_group(shape, groups, groups - 1).size);
}

/// Bytes of the query and key columns of x.
double normed_bytes(const AttentionShape& shape, const Tensor& x) {
  return static_cast<double>(x.bytes()) * (shape.heads + shape.kv_heads) / (shape.heads + 2 * shape.kv_heads);
}

}  // namespace

void QkSquares::check(DType a) const {
  check_rows(a, shape, x);
  check_sums(shape, squares);
}

OpCost QkSquares::cost() const {
  return {.bytes_read = normed_bytes(shape, x), .bytes_written = static_cast<double>(squares.bytes())};
}

void QkNormForward::check(DType a) const {
  check_rows(a, shape, x);
  check_rows(a, shape, qkv);
  check_sums(shape, squares);
  check_gains(shape, squares.extent(1), q_gain, k_gain);
  VQLM_ASSERT(ranks >= 1);
}

OpCost QkNormForward::cost() const {
  return cost_of({x, squares, q_gain, k_gain}, {qkv});
}

void QkDots::check(DType a) const {
  check_rows(a, shape, x);
  check_rows(a, shape, dqkv);
  check_sums(shape, dots);
  check_gains(shape, dots.extent(1), q_gain, k_gain);
}

OpCost QkDots::cost() const {
  return {.bytes_read = 2 * normed_bytes(shape, x), .bytes_written = static_cast<double>(dots.bytes())};
}

void QkNormBackward::check(DType a) const {
  check_rows(a, shape, x);
  check_rows(a, shape, dqkv);
  check_sums(shape, squares);
  check_sums(shape, dots);
  VQLM_ASSERT(squares.extent(1) == dots.extent(1) && ranks >= 1);
  check_gains(shape, squares.extent(1), q_gain, k_gain);
  check_gains(shape, squares.extent(1), q_dgain, k_dgain);
}

OpCost QkNormBackward::cost() const {
  OpCost cost = cost_of({squares, dots, q_gain, k_gain, q_dgain, k_dgain}, {q_dgain, k_dgain});
  cost.bytes_read += 2 * normed_bytes(shape, x);
  cost.bytes_written += normed_bytes(shape, dqkv);
  return cost;
}

}  // namespace vqlm
