#include "dist/mpi_check.h"

#include <mpi.h>
#include <spdlog/fmt/fmt.h>

#include <array>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {
namespace {

std::string failure_message(int code, const char* call, int rank, const std::string& group) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) length = 0;
  return fmt::format("{}: rank {} of group '{}': {} (MPI code {}); look for the first rank that failed", call, rank,
                     group, std::string_view(text.data(), static_cast<std::size_t>(length)), code);
}

}  // namespace

void mpi_check(int code, const char* call, int rank, const std::string& group) {
  if (code != MPI_SUCCESS) throw Error(failure_message(code, call, rank, group));
}

void mpi_log_failure(int code, const char* call, int rank, const std::string& group) noexcept {
  if (code == MPI_SUCCESS) return;
  try {
    log::error("{}", failure_message(code, call, rank, group));
  } catch (...) {  // a destructor has nobody to tell
  }
}

}  // namespace vqlm
