// The NCCL communicators of a test.
#pragma once

#include <algorithm>
#include <memory>

#include "core/cuda/cuda_backend.h"
#include "dist/nccl_communicator.h"
#include "tests/nccl/device_arrays.h"
#include "tests/ranks.h"

namespace vqlm::testing {

/// This rank's GPU; the stand-ins have one for all ranks of a node, NCCL wants one for each.
inline int own_device() {
  return session().local_rank() % std::max(1, cuda_device_count());
}

inline std::unique_ptr<NcclCommunicator> nccl_world(double timeout_seconds = 60) {
  cuda(cudaSetDevice(own_device()), "cudaSetDevice");
  NcclOptions options;
  options.timeout_seconds = timeout_seconds;
  options.on_failure = [](const std::string& message) { session().abort(message, 1); };
  const auto host = session().split(0, session().rank(), "world");
  return NcclCommunicator::make_world(*host, options);
}

}  // namespace vqlm::testing
