#include "core/ops/member_means.h"

namespace vqlm {
namespace {

/// `members`: the (V, d) side, `codes`: the (K, d) side, of either direction.
void check_sides(DType dtype, const Tensor& codes, const Tensor& members, const CodeMapView& map) {
  check_dtype(dtype, {codes, members});
  VQLM_ASSERT(codes.rank() == 2 && members.rank() == 2 && codes.extent(1) == members.extent(1));
  VQLM_ASSERT(map.member_begin.numel() == codes.extent(0) + 1 && map.members.numel() == members.extent(0));
}

}  // namespace

void AddMemberMeans::check(DType a) const {
  check_sides(a, out, members, map);
  check_dtype(a, {codebook});
  VQLM_ASSERT(codebook.shape() == out.shape() && !map.cluster_sizes);
}

OpCost AddMemberMeans::cost() const {
  return cost_of({codebook, members, map.member_begin}, {out});
}

void AddMemberMeansBackward::check(DType /*a*/) const {
  check_sides(DType::f32, dout, dmembers, map);
  check_dtype(DType::f32, {dcodebook});
  VQLM_ASSERT(!dcodebook || dcodebook.shape() == dout.shape());
}

OpCost AddMemberMeansBackward::cost() const {
  return cost_of({dcodebook, dmembers, dout, map.member_begin}, {dcodebook, dmembers});
}

}  // namespace vqlm
