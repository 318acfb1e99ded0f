#include "dist/launcher.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace vqlm {
namespace {

/// The number of processes that the launcher announced, or -1.
int announced_ranks() {
  // SLURM_NTASKS would not do: it is there in a batch script, too, which runs once. A launcher inside Slurm's step knows
  // better than Slurm, hence the order.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (const int ranks = number_from_environment(name); ranks > 0) return ranks;
  }
  return -1;
}

}  // namespace

int number_from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return -1;
  int number = -1;
  const char* end = text + std::strlen(text);
  const auto [stop, status] = std::from_chars(text, end, number);
  return status == std::errc() && stop == end && number >= 0 ? number : -1;
}

int launcher_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const int rank = number_from_environment(name); rank >= 0) return rank;
  }
  return 0;
}

int launcher_ranks() {
  const int announced = announced_ranks();
  return announced > 0 ? announced : 1;
}

bool launcher_may_connect_ranks() {
  if (const int announced = announced_ranks(); announced > 0) return announced > 1;
  // A launcher of PMIx or PMI gives every process its rank, but not each of them the number. Slurm's SLURM_PROCID alone
  // is a batch script's.
  return number_from_environment("PMIX_RANK") >= 0 || number_from_environment("PMI_RANK") >= 0;
}

}  // namespace vqlm
