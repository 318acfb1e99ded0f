// The check of MPI return codes. Communicators return their errors (MPI_ERRORS_RETURN), so each code must be
// looked at.
#pragma once

#include <string>

namespace vqlm {

/// Throws Error "<call>: rank <rank> of group <group>: <MPI's words>" where `code` is not MPI_SUCCESS.
void mpi_check(int code, const char* call, int rank, const std::string& group);

/// The same for destructors, which must not throw: logs instead.
void mpi_log_failure(int code, const char* call, int rank, const std::string& group) noexcept;

}  // namespace vqlm
