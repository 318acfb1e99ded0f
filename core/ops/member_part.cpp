#include "core/ops/member_part.h"

namespace vqlm {
namespace {

/// What both directions of the cross entropy are given.
template <class O>
void check_part(DType a, const O& op) {
  check_dtype(a, {op.h, op.vectors});
  check_dtype(DType::f32, {op.token_bias});
  check_dtype(DType::i32, {op.targets, op.order, op.row_begin});
  const CodeMapView& map = op.map;
  check_dtype(DType::i32, {map.members, map.member_begin, map.position_of_token, map.cluster_sizes});
  VQLM_ASSERT(op.h.rank() == 2 && op.vectors.shape() == Shape({map.members.numel(), op.h.extent(1)}));
  const std::int64_t rows = op.h.extent(0), clusters = op.row_begin.numel() - 1;
  VQLM_ASSERT(op.targets.numel() == rows && op.order.numel() == rows);
  VQLM_ASSERT(map.member_begin.numel() == clusters + 1 && map.cluster_sizes.numel() == clusters);
  VQLM_ASSERT(map.position_of_token.numel() == op.token_bias.numel());
}

/// Operations of `passes` products over the part's members of the targets' clusters.
template <class O>
double part_flops(const O& op, double passes) {
  const auto members = static_cast<double>(op.map.members.numel());
  const auto clusters = static_cast<double>(op.map.member_begin.numel() - 1);
  const double of_cluster = op.map.mean_members > 0 ? op.map.mean_members : members / clusters;
  return passes * 2.0 * static_cast<double>(op.h.numel()) * of_cluster;
}

}  // namespace

void MemberStatistics::check(DType a) const {
  check_part(a, *this);
  check_dtype(DType::f32, {statistics});
  VQLM_ASSERT(statistics.shape() == Shape({h.extent(0), 3}));
}

OpCost MemberStatistics::cost() const {
  return cost_of({h, targets, order, row_begin, vectors, token_bias, map.members, map.member_begin}, {statistics},
                 part_flops(*this, 1));
}

void MemberPartGradient::check(DType a) const {
  check_part(a, *this);
  check_dtype(a, {gradients.dh});
  check_dtype(DType::f32, {lse, gradients.dmember_codebook, gradients.dtoken_bias});
  VQLM_ASSERT(lse.numel() == h.extent(0) && gradients.dh.shape() == h.shape());
  VQLM_ASSERT(gradients.dmember_codebook.shape() == vectors.shape());
  VQLM_ASSERT(gradients.dtoken_bias.numel() == token_bias.numel());
}

OpCost MemberPartGradient::cost() const {
  // dh and du; the scores, which are made once more, count as recomputation does.
  return cost_of({h, lse, targets, order, row_begin, vectors, token_bias, map.members, map.member_begin, gradients.dh,
                  gradients.dmember_codebook, gradients.dtoken_bias},
                 {gradients.dh, gradients.dmember_codebook, gradients.dtoken_bias}, part_flops(*this, 2));
}

void MemberMeansPart::check(DType a) const {
  check_dtype(a, {vectors});
  check_dtype(DType::f32, {means});
  check_dtype(DType::i32, {map.member_begin, map.cluster_sizes});
  VQLM_ASSERT(means.rank() == 2 && vectors.shape() == Shape({map.members.numel(), means.extent(1)}));
  VQLM_ASSERT(map.member_begin.numel() == means.extent(0) + 1 && map.cluster_sizes.numel() == means.extent(0));
}

OpCost MemberMeansPart::cost() const {
  return cost_of({vectors, map.member_begin, map.cluster_sizes}, {means});
}

}  // namespace vqlm
