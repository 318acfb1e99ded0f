// The product of a matrix and one vector.
#pragma once

#include <cstdint>

#include "core/ops/op.h"

namespace vqlm::cpu {

/// y (n) = w (n, k) x (k), added to y where `accumulate` says so; k >= 1. Splits the rows over OpenMP's threads; the same
/// bits for any number of them.
void matrix_vector(float* y, const float* w, const float* x, std::int64_t n, std::int64_t k, Accumulate accumulate);

}  // namespace vqlm::cpu
