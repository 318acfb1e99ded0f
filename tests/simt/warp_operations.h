// Tensor core operations on the whole warp's registers; layouts as in core/cuda/tensor_core.h.
#pragma once

#include "tests/simt/device_builtins.h"

namespace simt {

/// Lane i's row i % 8 of matrix i / 8, as read by that lane, in; its registers out.
struct LdmatrixOperand {
  unsigned row[4];
  unsigned registers[4];
};
enum class Transposed : bool { no, yes };
void ldmatrix(LdmatrixOperand& operand, Transposed transposed, Where where);

struct MmaOperand {
  float* c;
  const unsigned* a;
  const unsigned* b;
};
void mma_bf16_16816(MmaOperand& operand, Where where);

}  // namespace simt
