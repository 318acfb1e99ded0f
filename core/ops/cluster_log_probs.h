// Log-probabilities inside chosen clusters of the VQ head.
#pragma once

#include "core/ops/code_map_view.h"

namespace vqlm {

/// out (m, L) f32 overwritten, L = map.largest_cluster. Row i is, over the members w of cluster clusters[i] in member
/// order, s_w - lse_w(s_w) with s_w = h . u_w + b_w for h's row rows[i]; -infinity past the cluster's size. rows,
/// clusters (m) i32; h (N, d) A; u by member_codebook (code_map_view.h); b: token_bias (V) f32. Entries of one row cost
/// least where they stand together.
struct ClusterLogProbs {
  static constexpr std::string_view name = "cluster_log_probs";
  Tensor out;
  Tensor h;
  Tensor rows;
  Tensor clusters;
  Tensor member_codebook = {};
  Tensor token_bias;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
