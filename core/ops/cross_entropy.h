// Softmax cross entropy over sharded classes: the dense head's, and that of the VQ head's K codes.
#pragma once

#include <cstdint>

#include "core/ops/op.h"

namespace vqlm {

/// Which classes logits (N, W) hold: [first, first + count) of all, in columns [0, count). The columns behind them are
/// padding (Backend::class_multiple): they are no classes, and their gradient is zero.
struct ClassShard {
  std::int64_t first = 0;
  std::int64_t count = 0;  // at most W
};

/// statistics (N, 3), overwritten: this shard's maximum, sum of exp(x - maximum), and the target's x, or 0 where
/// the target is not in the shard. x = logits (N, W) A + bias (C) f32, or logits where bias is absent; where softcap c > 0,
/// c tanh(x / c) in its place (Gemma 2, arXiv 2408.00118). C = classes.count, more than 0 on the host, and the columns behind
/// them are not read.
struct SoftmaxStatistics {
  static constexpr std::string_view name = "softmax_statistics";
  Tensor statistics;
  Tensor logits;
  Tensor bias = {};
  Tensor targets;
  ClassShard classes;
  float softcap = 0;

  void check(DType a) const;
  OpCost cost() const;
};

/// Combines statistics (P, N, 3) of the P shards in order: lse (N) overwritten; nll (N) overwritten with
/// lse - target's x, and 0 where targets[n] < 0. penalty (N), where present, is overwritten with z_loss * lse^2 (Chowdhery et
/// al., arXiv 2204.02311), and 0 where targets[n] < 0.
struct SoftmaxCombine {
  static constexpr std::string_view name = "softmax_combine";
  Tensor nll;
  Tensor lse;
  Tensor statistics;
  Tensor targets;
  Tensor penalty = {};
  float z_loss = 0;

  void check(DType a) const;
  OpCost cost() const;
};

/// logits (N, W) A become the gradient of scale * (nll + penalty): scale * (exp(x - lse) (1 + 2 z_loss lse) - [target]), times
/// 1 - (x / c)^2 where softcap c > 0; rows with target < 0 become 0, and so do the columns behind the shard's classes. x as
/// above.
struct SoftmaxGradient {
  static constexpr std::string_view name = "softmax_gradient";
  Tensor logits;
  Tensor bias = {};
  Tensor lse;
  Tensor targets;
  ClassShard classes;
  float scale;
  float z_loss = 0;
  float softcap = 0;

  void check(DType a) const;
  OpCost cost() const;
};

/// The four steps of a whole softmax layer's training in one, whose classes all lie here: nll, lse and penalty as SoftmaxCombine
/// gives them, logits (N, W) A as SoftmaxGradient leaves them, dbias (C), where present, accumulates the sums of their columns
/// (AddColumnSums). statistics (N, 3) f32: to work in. The operands are those of the four.
struct SoftmaxCrossEntropy {
  static constexpr std::string_view name = "softmax_cross_entropy";
  Tensor nll;
  Tensor lse;
  Tensor penalty = {};
  Tensor dbias = {};
  Tensor logits;
  Tensor statistics;
  Tensor bias = {};
  Tensor targets;
  ClassShard classes;
  float scale;
  float z_loss = 0;
  float softcap = 0;

  /// Its steps, for back ends that take them one by one.
  SoftmaxStatistics statistics_step() const;
  SoftmaxCombine combine_step() const;
  SoftmaxGradient gradient_step() const;

  void check(DType a) const;
  OpCost cost() const;
};

/// logits (N, C), f32 here, become x - logsumexp(x), x as above.
struct LogSoftmax {
  static constexpr std::string_view name = "log_softmax";
  Tensor logits;
  Tensor bias = {};
  float softcap = 0;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
