// Rotary position embedding (arXiv 2104.09864) in Hugging Face's half-split order.
#pragma once

#include "core/ops/attention.h"

namespace vqlm {

/// Which rotation RopeForward gives to row t of a sequence: that of position first + t.
struct RopePositions {
  Tensor frequencies;      // (head_dim / 2) f64: radians that pair i turns from one position to the next
  std::int64_t first = 0;  // position of row t = 0
};

/// Rotates the query and key heads of qkv (B, T, row) A in place; row (b, t) has position p = positions.first + t. Pairs
/// (i, i + head_dim / 2), angle p * frequencies[i]. Angles are made in double up to their remainder in turns.
struct RopeForward {
  static constexpr std::string_view name = "rope_forward";
  Tensor qkv;
  AttentionShape shape;
  RopePositions positions;

  void check(DType a) const;
  OpCost cost() const;
};

/// The inverse rotation, in place on dqkv.
struct RopeBackward {
  static constexpr std::string_view name = "rope_backward";
  Tensor dqkv;
  AttentionShape shape;
  RopePositions positions;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
