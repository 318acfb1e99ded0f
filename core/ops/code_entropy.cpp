#include "core/ops/code_entropy.h"

namespace vqlm {

void SortRowsByCluster::check(DType /*a*/) const {
  check_dtype(DType::i32, {clusters, order, row_begin, targets, map.cluster_of_token});
  const std::int64_t rows = targets.numel();
  VQLM_ASSERT(clusters.numel() == rows && order.numel() == rows && row_begin.numel() > 1);
}

OpCost SortRowsByCluster::cost() const {
  return cost_of({targets, clusters}, {clusters, order, row_begin});
}

void Commitment::check(DType a) const {
  check_dtype(a, {dh, h, codebook});
  check_dtype(DType::f32, {penalty});
  check_dtype(DType::i32, {clusters});
  VQLM_ASSERT(h.rank() == 2 && codebook.rank() == 2 && codebook.extent(1) == h.extent(1));
  VQLM_ASSERT(penalty.numel() == h.extent(0) && clusters.numel() == h.extent(0));
  VQLM_ASSERT(!dh || dh.shape() == h.shape());
}

/// A code is read for every row.
OpCost Commitment::cost() const {
  return cost_of({h, h, clusters, dh}, {penalty, dh});
}

void CodesFromAverages::check(DType /*a*/) const {
  check_dtype(DType::f32, {codebook, sums, counts});
  VQLM_ASSERT(codebook.rank() == 2 && sums.shape() == codebook.shape() && counts.numel() == codebook.extent(0));
}

OpCost CodesFromAverages::cost() const {
  return cost_of({sums, counts}, {codebook});
}

}  // namespace vqlm
