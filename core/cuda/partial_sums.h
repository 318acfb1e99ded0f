// The second stage of sums over rows: the same result in every run, without atomics.
#pragma once

#include <cstdint>

#include "core/cuda/context.h"

namespace vqlm::cuda {

/// out (columns) += the sum over `parts` rows of partials (parts, stride), columns <= stride, both f32 on the device.
void add_partial_sums(const Context& context, float* out, const float* partials, std::int64_t parts,
                      std::int64_t stride, std::int64_t columns);

/// True where the current device's kernels, all of which are compiled for the same chips, wait as their GridDependency says:
/// their code is for compute capability 9.0. Throws Error.
bool kernels_wait();

}  // namespace vqlm::cuda
