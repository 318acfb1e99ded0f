#include "core/ops/member_entropy.h"

namespace vqlm {

void MemberEntropy::check(DType a) const {
  check_dtype(a, {h, gradients.dh});
  check_dtype(DType::f32, {nll, gradients.dmember_codebook, gradients.dtoken_bias});
  check_dtype(DType::i32, {targets, order, row_begin});
  VQLM_ASSERT(h.rank() == 2 && !map.cluster_sizes);
  const std::int64_t rows = h.extent(0), vocabulary = token_bias.numel();
  VQLM_ASSERT(nll.numel() == rows && targets.numel() == rows && order.numel() == rows);
  VQLM_ASSERT(map.member_begin.numel() == row_begin.numel() && map.position_of_token.numel() == vocabulary);
  check_members(a, h.extent(1), member_codebook, token_bias, map);
  if (!gradients.dh) return;
  VQLM_ASSERT(gradients.dh.shape() == h.shape() && gradients.dtoken_bias.numel() == vocabulary);
  VQLM_ASSERT(gradients.dmember_codebook.shape() == member_codebook.shape());
}

OpCost MemberEntropy::cost() const {
  const auto vocabulary = static_cast<double>(map.cluster_of_token.numel());
  const auto clusters = static_cast<double>(map.member_begin.numel() - 1);
  const double members = map.mean_members > 0 ? map.mean_members : vocabulary / clusters;
  // s = h u, and in backward dh and du, each over the members of the target's cluster.
  const double passes = gradients.dh ? 3 : 1;
  const double flops = member_codebook ? passes * 2.0 * static_cast<double>(h.numel()) * members : 0.0;
  return cost_of({nll, h, targets, order, row_begin, member_codebook, token_bias, map.members, map.member_begin,
                  codes_of(member_codebook, map), gradients.dh, gradients.dmember_codebook, gradients.dtoken_bias},
                 {nll, gradients.dh, gradients.dmember_codebook, gradients.dtoken_bias}, flops);
}

}  // namespace vqlm
