#include "core/ops/member_log_probs.h"

namespace vqlm {

void MemberLogProbs::check(DType a) const {
  check_dtype(a, {h});
  check_dtype(DType::f32, {log_probs, code_log_probs});
  VQLM_ASSERT(h.rank() == 2 && log_probs.rank() == 2 && code_log_probs.rank() == 2);
  const std::int64_t rows = h.extent(0), vocabulary = log_probs.extent(1);
  VQLM_ASSERT(log_probs.extent(0) == rows && code_log_probs.extent(0) == rows);
  VQLM_ASSERT(map.member_begin.numel() == code_log_probs.extent(1) + 1 && map.members.numel() == vocabulary);
  VQLM_ASSERT(map.cluster_of_token.numel() == vocabulary && map.position_of_token.numel() == vocabulary);
  check_members(a, h.extent(1), member_codebook, token_bias, map);
}

/// Tables of h_g . u_{g, q}, Q d multiply-adds a row; or V d with the members' own vectors.
OpCost MemberLogProbs::cost() const {
  const double flops = 2.0 * static_cast<double>(h.extent(0)) * static_cast<double>(member_codebook.numel());
  return cost_of({h, code_log_probs, member_codebook, token_bias, map.cluster_of_token, codes_of(member_codebook, map)},
                 {log_probs}, flops);
}

}  // namespace vqlm
