// What the stand-in for cuBLASLt does with bf16 operands whose leading dimension or address is no multiple of 8 elements.
#pragma once

namespace simt {

enum class UnalignedOperands {
  refused,       // CUBLAS_STATUS_INVALID_VALUE and a line on standard error: a layer forgot to pad
  allowed,       // computed
  no_algorithm,  // the heuristic finds none
};

/// `refused` at first. For the tests' main thread.
void set_unaligned_operands(UnalignedOperands rule);

}  // namespace simt
