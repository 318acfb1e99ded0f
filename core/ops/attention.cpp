#include "core/ops/attention.h"

namespace vqlm {
namespace {

void check_heads(const AttentionShape& s) {
  VQLM_ASSERT(s.kv_heads > 0 && s.heads % s.kv_heads == 0 && s.head_dim > 0);
  VQLM_ASSERT(s.window >= 0 && s.scale >= 0);
}

/// The elements of out and dout.
std::int64_t out_size(const AttentionShape& s) {
  return s.batch * s.seq_len * s.heads * s.head_dim;
}

/// The operations of the scores and of the sum over values, where half of the T x T scores exist, or window of a row's.
/// Documents would save more; how many there are is not known beforehand.
double causal_flops(const AttentionShape& s) {
  const double all = 2.0 * static_cast<double>(s.batch * s.seq_len * s.seq_len) * s.heads * s.head_dim;
  if (s.window == 0 || s.window >= s.seq_len) return all;
  const std::int64_t outside = s.seq_len - s.window;
  return all - 2.0 * static_cast<double>(s.batch * outside * outside) * s.heads * s.head_dim;
}

void check_documents(const AttentionShape& s, const Tensor& documents, std::int64_t positions) {
  if (!documents) return;
  check_dtype(DType::i32, {documents});
  VQLM_ASSERT(documents.rank() == 3 && documents.extent(0) == 2 && documents.extent(1) == s.batch);
  VQLM_ASSERT(documents.extent(2) >= positions);
}

}  // namespace

void AttentionForward::check(DType a) const {
  check_heads(shape);
  check_documents(shape, documents, shape.seq_len);
  check_dtype(a, {out, qkv});
  check_dtype(DType::f32, {lse});
  const std::int64_t rows = shape.batch * shape.seq_len;
  VQLM_ASSERT(qkv.shape().numel() == rows * shape.row() && out.shape().numel() == out_size(shape));
  VQLM_ASSERT(lse.shape().numel() == rows * shape.heads);
}

OpCost AttentionForward::cost() const {
  return cost_of({qkv}, {out, lse}, causal_flops(shape));
}

void AttentionBackward::check(DType a) const {
  check_heads(shape);
  check_documents(shape, documents, shape.seq_len);
  check_dtype(a, {dqkv, dout, out, qkv});
  check_dtype(DType::f32, {lse});
  const std::int64_t rows = shape.batch * shape.seq_len;
  VQLM_ASSERT(qkv.shape().numel() == rows * shape.row() && dqkv.shape().numel() == rows * shape.row());
  VQLM_ASSERT(out.shape().numel() == out_size(shape) && dout.shape().numel() == out_size(shape));
  VQLM_ASSERT(lse.shape().numel() == rows * shape.heads);
}

OpCost AttentionBackward::cost() const {
  return cost_of({dout, out, lse, qkv}, {dqkv}, 2 * causal_flops(shape));
}

void AttentionCached::check(DType a) const {
  check_heads(shape);
  check_dtype(a, {out, keys, values, qkv});
  VQLM_ASSERT(keys.rank() == 4 && keys.extent(0) == shape.batch && keys.extent(1) == shape.kv_heads &&
              keys.extent(3) == shape.head_dim && values.shape() == keys.shape());
  VQLM_ASSERT(past >= 0 && past + shape.seq_len <= keys.extent(2));
  check_documents(shape, documents, past + shape.seq_len);
  VQLM_ASSERT(qkv.shape().numel() == shape.batch * shape.seq_len * shape.row());
  VQLM_ASSERT(out.shape().numel() == out_size(shape));
}

OpCost AttentionCached::cost() const {
  const std::int64_t kept = shape.batch * shape.kv_heads * shape.head_dim;  // numbers of a position
  const auto width = static_cast<double>(size_of(qkv.dtype()));
  // Row t meets past + t + 1 keys, or a window of them.
  double met = 0;
  for (std::int64_t t = past; t < past + shape.seq_len; ++t) met += static_cast<double>(t + 1 - shape.first_key(t));
  OpCost cost = cost_of({qkv}, {out}, 4.0 * met * static_cast<double>(shape.batch) * shape.heads * shape.head_dim);
  cost.bytes_read += 2 * width * static_cast<double>(kept * (past - std::min(past, shape.first_key(past))));
  cost.bytes_written += 2 * width * static_cast<double>(kept * shape.seq_len);
  return cost;
}

}  // namespace vqlm
