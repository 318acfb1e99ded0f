// The NCCL communicators of a test.
#pragma once

#include <memory>

#include "dist/nccl_communicator.h"
#include "tests/ranks.h"

namespace vqlm::testing {

inline std::unique_ptr<NcclCommunicator> nccl_world(double timeout_seconds = 60) {
  NcclOptions options;
  options.timeout_seconds = timeout_seconds;
  options.on_failure = [](const std::string& message) { session().abort(message, 1); };
  const auto host = session().split(0, session().rank(), "world");
  return NcclCommunicator::make_world(*host, options);
}

}  // namespace vqlm::testing
