// Heads for later tokens: beside the output head, which predicts token t + 1 after position t, F more predict t + 2 ... t + 1 + F
// (multi-token prediction, Gloeckle et al., arXiv 2404.19737). Each has one matrix of its own and shares all of the output head:
//   z_j = W_j h,   g_j = h + silu(z_j),   p_j(v | h) = p(v | g_j)          j = 1 ... F, W_j (d, d)
// which is the form of Medusa's heads (arXiv 2401.10774) without a vocabulary matrix each. W_j starts at zero, so that head j
// starts as the output head; silu'(0) = 1/2, so that it learns from the first step on.
#pragma once

#include <string_view>

#include "core/model/head/output_head.h"

namespace vqlm {

inline constexpr std::string_view future_heads_prefix = "future_heads.";

class FutureHeads {
 public:
  /// Adds `future_heads.J.weight`, J = j - 1, to the replicated bucket: as a low-rank head's projection they are whole on every
  /// rank and work on its own n rows, so that their gradients are partial sums over the tensor group.
  FutureHeads(const HeadContext& context, const FutureHeadsConfig& config);

  std::int64_t count() const { return static_cast<std::int64_t>(weights_.size()); }
  /// The output head's cost with these: it is run 1 + F times on a token, and has F d^2 numbers more.
  HeadCost with_cost(HeadCost of_head) const;

  /// g_j of h (rows, d), rows at most n, valid until the next call of any of these. j counts from 0 here.
  Tensor hidden(std::int64_t j, Tensor h);
  /// nll (F, n) overwritten: -log p_j(target | h) for h (n, d) and targets (F, n), -1 = none, whose rows add nothing.
  void forward(OutputHead& head, Tensor nll, Tensor h, Tensor targets);
  /// The same between the head's begin_backward() and end_backward(), and the gradient of scale * weight / F * sum over all F of
  /// nll and penalty: dh (n, d), the head's and W_j's accumulate.
  void forward_backward(OutputHead& head, Tensor nll, Tensor dh, Tensor h, Tensor targets, float scale);

 private:
  Backend& backend_;
  ParameterStore& parameters_;
  float weight_;
  std::vector<ParameterId> weights_;  // W_j

  Buffer storage_;
  Tensor z_, hidden_, gradient_;  // (n, d) A each, the last in training
  Tensor penalty_;                // (n), training
};

}  // namespace vqlm
