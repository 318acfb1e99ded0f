// A VQ head's members cut over ranks, which have a part of every cluster: the cross entropy inside a cluster as sharded
// classes have it (cross_entropy.h), and the part's share of the clusters' means. map is a part (code_map_view.h); members'
// vectors are rows of their own, (M, d) in its order.
#pragma once

#include "core/ops/member_entropy.h"

namespace vqlm {

/// statistics (N, 3), overwritten, over the part's members w of the target's cluster: the maximum of s_w, the sum of
/// exp(s_w - maximum), and the target's s, or 0 where the part has it not; the lowest float, 0 and 0 where the part has no
/// member of the cluster, and for rows with target < 0. s_w = h . u_w + b_w, u by vectors, b: token_bias (V) f32; rows by
/// order and row_begin as in MemberEntropy. SoftmaxCombine makes lse and nll of the parts' statistics.
struct MemberStatistics {
  static constexpr std::string_view name = "member_statistics";
  Tensor statistics;
  Tensor h;
  Tensor targets;
  Tensor order;
  Tensor row_begin;
  Tensor vectors;
  Tensor token_bias;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

/// With lse (N) over the members of all parts and ds_w = gradients.scale * (exp(s_w - lse) - [w = y]): gradients.dh (N, d)
/// accumulates the part's sum of ds_w u_w, dmember_codebook (M, d) ds_w h at w's row, dtoken_bias (V) ds_w.
struct MemberPartGradient {
  static constexpr std::string_view name = "member_part_gradient";
  MemberGradients gradients;
  Tensor h;
  Tensor lse;
  Tensor targets;
  Tensor order;
  Tensor row_begin;
  Tensor vectors;
  Tensor token_bias;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

/// means (K, d) f32 overwritten: the sum of the part's vectors (M, d) A of cluster k over the whole cluster's size. Over all
/// parts these sum to the clusters' means.
struct MemberMeansPart {
  static constexpr std::string_view name = "member_means_part";
  Tensor means;
  Tensor vectors;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
