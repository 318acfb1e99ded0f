// The matrix-product rate of this machine, against which model FLOP/s utilisation is stated.
#pragma once

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

struct MatmulPeak {
  double flops_per_second = 0;  // of all ranks together
  std::int64_t size = 0;        // of the product's three extents, on this rank
};

/// The rate of square products of random numbers in the activation dtype by all ranks of `group` together (collective): the
/// best of five windows of about seconds / 5, in each of which all ranks multiply at the same time, so that ranks sharing a
/// machine share its peak. 1024^3 on the host; on a device the first of 256^3, 512^3 ... 8192^3 that takes a millisecond.
MatmulPeak measure_matmul_peak(Backend& backend, Communicator& group, double seconds = 0.5);

}  // namespace vqlm
