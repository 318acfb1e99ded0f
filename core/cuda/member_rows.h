// member_log_probs where members have vectors of their own.
#pragma once

#include "core/backend.h"
#include "core/cuda/context.h"

namespace vqlm::cuda {

/// Backend::member_log_probs with vectors (V, d) in member order; rows and vocabulary not empty, shapes checked but for
/// the vectors'.
void own_vector_log_probs(const Context& context, Tensor log_probs, Tensor h, Tensor code_log_probs,
                          Tensor vectors, Tensor token_bias, const CodeMapView& map);

}  // namespace vqlm::cuda
