// The matrix-product rate of this machine, against which model FLOP/s utilisation is stated.
#pragma once

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

/// FLOP/s of a 1024 x 1024 x 1024 fp32 product by all ranks of `group` together (collective): the best of five windows of
/// seconds / 5, in each of which all ranks multiply at the same time, so that ranks sharing a machine share its peak.
double measure_matmul_peak(Backend& backend, Communicator& group, double seconds = 0.5);

}  // namespace vqlm
