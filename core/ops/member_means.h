// What scores the VQ head's clusters by their members, too.
#pragma once

#include "core/ops/code_map_view.h"

namespace vqlm {

/// out (K, d) overwritten with codebook's row k + the mean of the vectors of cluster k's members; members (V, d) in member
/// order. All A; made in f32 and rounded once. No cluster is empty.
struct AddMemberMeans {
  static constexpr std::string_view name = "add_member_means";
  Tensor out;
  Tensor codebook;
  Tensor members;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

/// dcodebook (K, d), where present, accumulates dout (K, d), and dmembers (V, d) dout's row of the member's cluster over the
/// cluster's size; with a part of a map dmembers (M, d), over the whole cluster's size. All f32.
struct AddMemberMeansBackward {
  static constexpr std::string_view name = "add_member_means_backward";
  Tensor dcodebook = {};
  Tensor dmembers;
  Tensor dout;
  CodeMapView map;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
