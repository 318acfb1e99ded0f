// Members with vectors of their own, rows of a matrix (V, d) in member order: their scores without a gradient.
#pragma once

#include "core/backend.h"

namespace vqlm::cpu {

/// Whether member_codebook is in this form (core/backend.h).
inline bool are_own_vectors(const Tensor& member_codebook) {
  return member_codebook && member_codebook.rank() == 2;
}

/// scores (count): h . vectors[w] for one row h (d) and consecutive rows of vectors (count, d), at the memory's rate.
void score_member_rows(float* scores, const float* h, const float* vectors, std::int64_t count,
                       std::int64_t d);

/// Backend::member_log_probs in this form.
void own_vector_log_probs(Tensor log_probs, Tensor h, Tensor code_log_probs, Tensor vectors,
                          Tensor token_bias, const CodeMapView& map);

}  // namespace vqlm::cpu
