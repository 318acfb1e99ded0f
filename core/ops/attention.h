// Causal attention of a fused projection, over whole sequences (arXiv 2205.14135) and over a cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/ops/op.h"

namespace vqlm {

/// How the columns of a fused projection qkv (B, T, (heads + 2 kv_heads) * head_dim) are laid out: all query heads,
/// then all key heads, then all value heads. Query head h reads key/value head h / (heads / kv_heads). And what attention makes
/// of it: the factor of scores, and how far back a row sees.
struct AttentionShape {
  std::int64_t batch = 0;
  std::int64_t seq_len = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;         // even
  float scale = 0;          // of scores; 0: 1 / sqrt(head_dim)
  std::int64_t window = 0;  // row t sees keys (t - window, t], itself among them; 0: all up to t

  float score_scale() const { return scale > 0 ? scale : 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  /// The first key that a row at this position sees.
  std::int64_t first_key(std::int64_t position) const {
    return window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
  }
  /// The first position behind this key that no longer sees it, at most `end`.
  std::int64_t query_end(std::int64_t key, std::int64_t end) const {
    return window > 0 ? std::min(end, key + window) : end;
  }
  std::int64_t row() const { return static_cast<std::int64_t>(heads + 2 * kv_heads) * head_dim; }
};

/// out (B, T, heads * head_dim) = causal softmax(scale * q k^T) v, of the keys that a row sees (AttentionShape); lse (B, heads,
/// T) the log-sum-exp of each row's scaled scores, kept for backward; both overwritten. No T x T array in memory (arXiv
/// 2205.14135), and no tile of it that nobody sees is computed. out, qkv: A; lse: f32. Where `documents` (2, B, C) i32,
/// C >= T, is present, rows see their own document alone (FindDocuments).
/// A GPU takes head_dim 32, 64 and 128 and throws Error for others.
struct AttentionForward {
  static constexpr std::string_view name = "attention_forward";
  Tensor out;
  Tensor lse;
  Tensor qkv;
  AttentionShape shape;
  Tensor documents = {};

  void check(DType a) const;
  OpCost cost() const;
};

/// dqkv (B, T, row) overwritten, from dout, out, lse and qkv; all A but lse. documents: as in forward.
struct AttentionBackward {
  static constexpr std::string_view name = "attention_backward";
  Tensor dqkv;
  Tensor dout;
  Tensor out;
  Tensor lse;
  Tensor qkv;
  AttentionShape shape;
  Tensor documents = {};

  void check(DType a) const;
  OpCost cost() const;
};

/// Attention of new rows to all that came before, kept in a cache: generation's AttentionForward. The keys and values of
/// qkv (B, T, row), rotated already, are written to keys and values (B, kv_heads, capacity, head_dim) at positions
/// [past, past + T); then out (B, T, heads * head_dim), overwritten: row t is softmax(scale * q k^T) v over
/// positions [0, past + t], or the last shape.window of them, and of those, where documents is
/// present, those of its document alone. past + T <= capacity; what the cache holds from past + T on is neither read nor changed. T = 1
/// is decoding, past = 0 the first part of a prompt. All A. Head widths as of AttentionForward.
struct AttentionCached {
  static constexpr std::string_view name = "attention_cached";
  Tensor out;
  Tensor keys;
  Tensor values;
  Tensor qkv;
  AttentionShape shape;
  std::int64_t past;
  Tensor documents = {};

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
