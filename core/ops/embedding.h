// Rows of a table by token id, and their gradients.
#pragma once

#include <cstdint>

#include "core/ops/op.h"

namespace vqlm {

/// out (N, w): row n is table (R, w) row ids[n] - first_row, or zeros where that is outside [0, R), added to that of `base`
/// where there is one (N, w); overwritten. base may be out. out, table, base: A.
struct EmbeddingForward {
  static constexpr std::string_view name = "embedding_forward";
  Tensor out;
  Tensor ids;
  Tensor table;
  Tensor base = {};
  std::int64_t first_row;

  void check(DType a) const;
  OpCost cost() const;
};

/// dtable (R, w) f32 accumulates dout's rows (N, w) A; rows outside are skipped.
struct EmbeddingBackward {
  static constexpr std::string_view name = "embedding_backward";
  Tensor dtable;
  Tensor dout;
  Tensor ids;
  std::int64_t first_row;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
