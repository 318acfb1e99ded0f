// member_log_probs where members have vectors of their own.
#pragma once

#include "core/cuda/context.h"
#include "core/ops/member_log_probs.h"

namespace vqlm::cuda {

/// MemberLogProbs with vectors (V, d) in member order; rows and vocabulary not empty.
void own_vector_log_probs(const Context& context, const MemberLogProbs& op);

}  // namespace vqlm::cuda
