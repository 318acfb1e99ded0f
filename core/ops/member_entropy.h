// The cross entropy of the VQ head inside a token's cluster.
#pragma once

#include "core/ops/code_map_view.h"

namespace vqlm {

/// Where member_entropy's gradients go.
struct MemberGradients {
  Tensor dh = {};                // (N, d) A, or absent: no gradients at all
  Tensor dmember_codebook = {};  // f32, of member_codebook's form, absent where that is
  Tensor dtoken_bias = {};       // (V) f32
  float scale = 1;
};

/// With w over the members of k(y), y the target,
///   s_w = h . u_w + b_w,   nll (N) accumulates lse_w(s_w) - s_y (rows with target < 0: nothing).
/// h (N, d) A; u by member_codebook (code_map_view.h); b: token_bias (V) f32. clusters are given by order (N) and
/// row_begin (K + 1) of SortRowsByCluster. Where gradients.dh is present, with
/// ds_w = gradients.scale * (softmax(s)_w - [w = y]): dh (N, d) accumulates sum_w ds_w u_w; dmember_codebook accumulates
/// ds_w h_g at (g, q_g(w)), or ds_w h at w's row; dtoken_bias (V) accumulates ds_w.
struct MemberEntropy {
  static constexpr std::string_view name = "member_entropy";
  Tensor nll;
  MemberGradients gradients = {};
  Tensor h;
  Tensor targets;
  Tensor order;
  Tensor row_begin;
  Tensor member_codebook = {};
  Tensor token_bias;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
