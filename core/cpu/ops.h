// The CPU ops: core/cpu/X.cpp specialises run() for the ops of core/ops/X.h.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace vqlm::cpu {

/// Does one op, with the threads that OpenMP gives. An op without a specialisation does not link.
template <class O>
void run(const O& op);

std::uint64_t fingerprint(Tensor x);

}  // namespace vqlm::cpu
