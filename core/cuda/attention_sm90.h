// Attention for compute capability 9.0 (Hopper): what its own kernels take; everything else runs the portable path.
#pragma once

#include "core/cuda/attention_gradient.h"
#include "core/cuda/context.h"
#include "core/ops/attention.h"

namespace vqlm::cuda::attention {

/// Whether Hopper's kernels serve: machine code for 9.0 runs on 9.0 alone, and a head must fill rows of 128 bytes in shared
/// memory. All masks are covered.
inline bool takes_sm90(const Context& context, const AttentionShape& shape) {
  return context.compute_capability == 90 && (shape.head_dim == 64 || shape.head_dim == 128);
}

/// Queues the op, or all of it but the queries' constants. Takes what takes_sm90 says, with at least one element of out.
void launch_sm90(const Context& context, const AttentionForward& op);
void launch_sm90(const Context& context, const AttentionBackward& op, const QueryConstants* constants);

}  // namespace vqlm::cuda::attention
