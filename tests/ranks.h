// What a multi-rank test file sees of the run it is part of. Every rank runs the same tests in the same order; tests use
// EXPECT_*, because a rank that leaves a test early would let the others wait (a fatal failure ends the whole job).
#pragma once

#include "dist/mpi_session.h"

namespace vqlm::testing {

/// The session that tests/ranks_main.cpp holds for the length of the run.
const MpiSession& session();

}  // namespace vqlm::testing
