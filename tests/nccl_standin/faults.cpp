#include "tests/nccl_standin/faults.h"

#include <csignal>
#include <cstdlib>
#include <optional>

namespace nccl_standin {
namespace {

std::optional<std::int64_t> number_from(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  return std::strtoll(text, nullptr, 10);
}

bool is_meant(const Communicator& communicator) {
  const char* group = std::getenv("NCCL_STANDIN_GROUP");
  if (group != nullptr && communicator.name != group) return false;
  int rank = 0;
  if (MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS) return false;
  return number_from("NCCL_STANDIN_RANK").value_or(rank) == rank;
}

}  // namespace

bool injected_fault(Communicator& communicator, std::int64_t sequence) {
  const auto at = [&](const char* variable) { return number_from(variable) == sequence && is_meant(communicator); };
  if (at("NCCL_STANDIN_DIE_AT")) raise(SIGKILL);
  if (at("NCCL_STANDIN_FAIL_AT")) communicator.fail(ncclRemoteError, "injected by NCCL_STANDIN_FAIL_AT");
  return at("NCCL_STANDIN_FAIL_AT") || at("NCCL_STANDIN_HANG_AT");
}

}  // namespace nccl_standin
