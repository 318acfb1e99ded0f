// The ops of the CUDA back end: core/cuda/X.cu specialises run() for the ops of core/ops/X.h, with A = bf16.
#pragma once

#include <cstdint>

#include "core/cuda/context.h"
#include "core/tensor.h"

namespace vqlm::cuda {

/// Enqueues one op on context.stream and returns; launches are checked. An op without a specialisation does not link.
template <class O>
void run(const Context& context, const O& op);

// elementwise.cu
void fill(const Context& context, Tensor x, float value);
void round_to_activation(const Context& context, Tensor dst, Tensor src);

// fingerprint.cu
/// Where in the workspace the device puts x's fingerprint.
const std::uint64_t* fingerprint(const Context& context, Tensor x);

}  // namespace vqlm::cuda
