// Causal attention of a fused projection, over whole sequences (arXiv 2205.14135) and over a cache.
#pragma once

#include <cstdint>

#include "core/ops/op.h"

namespace vqlm {

/// How the columns of a fused projection qkv (B, T, (heads + 2 kv_heads) * head_dim) are laid out: all query heads,
/// then all key heads, then all value heads. Query head h reads key/value head h / (heads / kv_heads).
struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t seq_len = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;  // even

  std::int64_t row() const { return static_cast<std::int64_t>(heads + 2 * kv_heads) * head_dim; }
};

/// out (B, T, heads * head_dim) = causal softmax(q k^T / sqrt(head_dim)) v; lse (B, heads, T) the log-sum-exp of
/// each row's scaled scores, kept for backward; both overwritten. No T x T array in memory (arXiv 2205.14135).
/// out, qkv: A; lse: f32. A GPU takes head_dim 32, 64 and 128 and throws Error for others.
struct AttentionForward {
  static constexpr std::string_view name = "attention_forward";
  Tensor out;
  Tensor lse;
  Tensor qkv;
  AttentionShape shape;

  void check(DType a) const;
  OpCost cost() const;
};

/// dqkv (B, T, row) overwritten, from dout, out, lse and qkv; all A but lse.
struct AttentionBackward {
  static constexpr std::string_view name = "attention_backward";
  Tensor dqkv;
  Tensor dout;
  Tensor out;
  Tensor lse;
  Tensor qkv;
  AttentionShape shape;

  void check(DType a) const;
  OpCost cost() const;
};

/// Attention of new rows to all that came before, kept in a cache: generation's AttentionForward. The keys and values of
/// qkv (B, T, row), rotated already, are written to keys and values (B, kv_heads, capacity, head_dim) at positions
/// [past, past + T); then out (B, T, heads * head_dim), overwritten: row t is softmax(q k^T / sqrt(head_dim)) v over
/// positions [0, past + t]. past + T <= capacity; what the cache holds from past + T on is neither read nor changed. T = 1
/// is decoding, past = 0 the first part of a prompt. All A. Head widths as of AttentionForward.
struct AttentionCached {
  static constexpr std::string_view name = "attention_cached";
  Tensor out;
  Tensor keys;
  Tensor values;
  Tensor qkv;
  AttentionShape shape;
  std::int64_t past;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
