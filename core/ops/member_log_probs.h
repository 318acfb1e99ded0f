// Log-probabilities of all tokens by the VQ head.
#pragma once

#include "core/ops/code_map_view.h"

namespace vqlm {

/// log_probs (N, V) f32 overwritten: code_log_probs (N, K) f32 at the token's cluster + s_v - lse over its cluster's
/// members; s_v = h . u_v + b_v with h (N, d) A, u by member_codebook (code_map_view.h), b: token_bias (V) f32.
struct MemberLogProbs {
  static constexpr std::string_view name = "member_log_probs";
  Tensor log_probs;
  Tensor h;
  Tensor code_log_probs;
  Tensor member_codebook = {};
  Tensor token_bias;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
