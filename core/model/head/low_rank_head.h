// LowRankHead: a dense head whose matrix has rank r, logits = U (A h) + b with U (V, r), A (r, d). U is a DenseHead over hidden
// states of width r, sharded over the vocabulary; A is whole on every rank and works on the rank's own n rows, in front of the
// gather, so that the tensor group exchanges r columns in place of d.
#pragma once

#include "core/model/head/dense_head.h"

namespace vqlm {

/// The standard deviation of U's first values.
float low_rank_stddev(std::int64_t d_model, std::int64_t rank);

class LowRankHead : public OutputHead {
 public:
  /// Adds `lm_head.weight` (U) and `lm_head.bias` as a dense head does, and `lm_head.projection.weight` (A) to the replicated
  /// bucket: its gradient is a partial sum over the tensor group's rows. tied_table: the embedding table's parameter (V, r),
  /// which is U then.
  LowRankHead(const HeadContext& context, const LowRankHeadConfig& config, std::optional<ParameterId> tied_table);

  /// A, for an embedding that shares it.
  ParameterId projection() const { return projection_; }

  HeadCost cost() const override;
  void initialize(const std::vector<std::int64_t>& counts) override { classes_.initialize(counts); }
  void forward(Tensor nll, Tensor h, Tensor targets) override;
  void rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) override;
  void log_probs(Tensor out, Tensor h) override;
  std::vector<TokenLogProb> most_probable(Tensor h, std::int64_t count, double mass) override;
  std::int32_t sample(Tensor h, float temperature, const std::function<double()>& uniform) override;

 private:
  /// A h: (rows, r) of h (rows, d), valid until the next call.
  Tensor projected(Tensor h);

  Backend& backend_;
  ParameterStore& parameters_;
  DenseHead classes_;       // U and b
  ParameterId projection_;  // A (r, d)
  Buffer storage_;
  Tensor projected_, projected_gradient_;  // (n, r) A each, the second in training
};

}  // namespace vqlm
