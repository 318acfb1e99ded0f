// Heads written out as one matrix: what a stock Llama, whose head is a matrix without bias, can compute.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/checkpoint/model_source.h"

namespace vqlm {

/// log p(v | h) = h . w_{row(v)} + constant_v + (what all tokens share).
struct ExpandedHead {
  std::string matrix;                      // the tensor that holds w
  std::vector<std::int32_t> row_of_token;  // (V); empty: row v is token v's
  std::vector<double> constants;           // (V); empty: zeros
};

/// Exists for dense heads and, of VQ heads, for G = 0 (constant_v = beta_k + b_v - logsumexp of b over the cluster k of v)
/// and for clusters of one token each. Throws Error for any other, and says why there is none. A low-rank head must be
/// multiplied out before (MultipliedHead).
ExpandedHead expand_head(const ModelSource& source);

/// Throws Error where the constants differ between tokens by more than rounding: no matrix without bias gives them.
void check_no_bias(const ExpandedHead& head, const ModelSource& source);

}  // namespace vqlm
