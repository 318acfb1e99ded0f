#include "core/ops/embedding.h"

namespace vqlm {

void EmbeddingForward::check(DType a) const {
  check_dtype(a, {out, table});
  if (base) {
    check_dtype(a, {base});
    VQLM_ASSERT(base.numel() == out.numel());
  }
  check_dtype(DType::i32, {ids});
  VQLM_ASSERT(table.rank() == 2 && out.numel() == ids.numel() * table.extent(1));
}

/// Rows of the table are counted as many times as they are asked for.
OpCost EmbeddingForward::cost() const {
  return base ? cost_of({ids, out, base}, {out}) : cost_of({ids, out}, {out});
}

void EmbeddingBackward::check(DType a) const {
  check_dtype(DType::f32, {dtable});
  check_dtype(a, {dout});
  check_dtype(DType::i32, {ids});
  VQLM_ASSERT(dtable.rank() == 2 && dout.numel() == ids.numel() * dtable.extent(1));
}

OpCost EmbeddingBackward::cost() const {
  const double rows = static_cast<double>(dout.numel()) * sizeof(float);
  return {.bytes_read = static_cast<double>(ids.bytes() + dout.bytes()) + rows, .bytes_written = rows};
}

}  // namespace vqlm
