// RMSNorm of the query and key heads of a fused projection (Henry et al., arXiv 2010.04245, as RMSNorm), in steps, because a
// sum over the whole width crosses the ranks of a tensor group: sums of squares, [their reduction,] the norm; in backward sums
// of products, [their reduction,] the gradients.
#pragma once

#include "core/ops/attention.h"

namespace vqlm {

/// A group of a row's columns that one root mean square is taken over, as the extent S of `squares` (N, S) says: S = heads +
/// kv_heads: each query head, then each key head; S = 2: all query heads, all key heads.
struct QkGroup {
  std::int64_t begin;  // column of qkv
  std::int64_t size;
  bool key;  // of the key heads
};
/// The number of groups `count` is S.
constexpr QkGroup qk_group(const AttentionShape& shape, std::int64_t count, std::int64_t group) {
  const std::int64_t query_groups = count == 2 ? 1 : shape.heads;
  const std::int64_t queries = static_cast<std::int64_t>(shape.heads) * shape.head_dim;
  if (group < query_groups) return {group * (queries / query_groups), queries / query_groups, false};
  const std::int64_t key_groups = count - query_groups;
  const std::int64_t size = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim / key_groups;
  return {queries + (group - query_groups) * size, size, true};
}

/// squares (N, S) f32 overwritten with the sums of squares of x's (N, row) A groups.
struct QkSquares {
  static constexpr std::string_view name = "qk_squares";
  Tensor squares;
  Tensor x;
  AttentionShape shape;

  void check(DType a) const;
  OpCost cost() const;
};

/// qkv (N, row) overwritten: x * rstd * gain in the query and key heads, rstd = 1 / sqrt(squares / (ranks * size) + eps); the
/// value heads are copied. squares: as QkSquares made them, summed over `ranks` ranks that hold as many columns each. Gains
/// f32, of a group's size: (head_dim), or this rank's (heads * head_dim) and (kv_heads * head_dim). qkv may be x.
struct QkNormForward {
  static constexpr std::string_view name = "qk_norm_forward";
  Tensor qkv;
  Tensor x;
  Tensor squares;
  Tensor q_gain, k_gain;
  AttentionShape shape;
  int ranks;
  float eps;

  void check(DType a) const;
  OpCost cost() const;
};

/// dots (N, S) f32 overwritten with the sums of dqkv * gain * x over the groups.
struct QkDots {
  static constexpr std::string_view name = "qk_dots";
  Tensor dots;
  Tensor dqkv;
  Tensor x;
  Tensor q_gain, k_gain;
  AttentionShape shape;

  void check(DType a) const;
  OpCost cost() const;
};

/// dqkv (N, row) A, in place: from the gradient of QkNormForward's qkv to that of its x, rstd (g - x rstd^2 dots / (ranks *
/// size)), g = dqkv gain; the value heads stay. dots: QkDots', summed over the ranks. q_dgain and k_dgain accumulate the sums
/// of dqkv x rstd, over rows and, with a gain for each head's columns, over heads.
struct QkNormBackward {
  static constexpr std::string_view name = "qk_norm_backward";
  Tensor dqkv;
  Tensor q_dgain, k_dgain;
  Tensor x;
  Tensor squares, dots;
  Tensor q_gain, k_gain;
  AttentionShape shape;
  int ranks;
  float eps;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
