// What the output head of a model sees of a text.
#pragma once

#include <cstdint>
#include <vector>

namespace vqlm {

/// Hidden states behind the last norm, in the text's order.
struct HiddenStates {
  std::int64_t rows = 0, dims = 0;
  std::vector<float> values;  // (rows, dims)
};

/// Mean o and covariance of hidden states. To the covariance's diagonal a ten-thousandth of its mean is added, so that it is
/// positive definite: a direction that the text hardly uses counts little, not nothing.
struct HiddenMoments {
  std::vector<double> mean;        // (dims)
  std::vector<double> covariance;  // (dims, dims), symmetric
};

/// Of the first `rows` states.
HiddenMoments moments_of(const HiddenStates& hidden, std::int64_t rows);

}  // namespace vqlm
