#include "core/ops/cluster_log_probs.h"

namespace vqlm {

void ClusterLogProbs::check(DType a) const {
  check_dtype(a, {h});
  check_dtype(DType::f32, {out});
  check_dtype(DType::i32, {rows, clusters});
  const std::int64_t entries = rows.numel();
  VQLM_ASSERT(clusters.numel() == entries && out.rank() == 2 && h.rank() == 2);
  VQLM_ASSERT(out.extent(0) == entries && out.extent(1) == map.largest_cluster);
  check_members(a, h.extent(1), member_codebook, token_bias, map);
}

/// Every cluster as large as the largest; its members' vectors are put together from the codebook, or read in place.
OpCost ClusterLogProbs::cost() const {
  const bool own_vectors = are_own_vectors(member_codebook);
  const double d = member_codebook ? static_cast<double>(h.extent(1)) : 0;
  const auto vectors = static_cast<double>(rows.numel() + (own_vectors ? out.numel() : 0));
  OpCost cost = cost_of({rows, clusters, own_vectors ? Tensor{} : member_codebook, token_bias, map.members,
                         codes_of(member_codebook, map)},
                        {out}, 2.0 * static_cast<double>(out.numel()) * d);
  cost.bytes_read += vectors * d * static_cast<double>(size_of(h.dtype()));
  return cost;
}

}  // namespace vqlm
