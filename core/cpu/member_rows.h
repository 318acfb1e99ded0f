// Members with vectors of their own, rows of a matrix (V, d) in member order: their scores without a gradient.
#pragma once

#include "core/ops/member_log_probs.h"

namespace vqlm::cpu {

/// scores (count): h . vectors[w] for one row h (d) and consecutive rows of vectors (count, d), at the memory's rate.
void score_member_rows(float* scores, const float* h, const float* vectors, std::int64_t count, std::int64_t d);

/// MemberLogProbs in this form.
void own_vector_log_probs(const MemberLogProbs& op);

}  // namespace vqlm::cpu
