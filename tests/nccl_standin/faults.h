// Faults that a test asks for by environment: at the call with this number (from 1) of a communicator
//   NCCL_STANDIN_FAIL_AT   an asynchronous error appears
//   NCCL_STANDIN_HANG_AT   the call never ends
//   NCCL_STANDIN_DIE_AT    the process is killed
// on world rank NCCL_STANDIN_RANK (default: all) of the communicators named NCCL_STANDIN_GROUP (default: all).
#pragma once

#include "tests/nccl_standin/communicator.h"

namespace nccl_standin {

/// True where the call is not to go on.
bool injected_fault(Communicator& communicator, std::int64_t sequence);

}  // namespace nccl_standin
