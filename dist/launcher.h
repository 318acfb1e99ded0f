// What a launcher (mpirun, srun) told this process by its environment, before MPI runs.
#pragma once

namespace vqlm {

/// A whole number >= 0 from the process' environment, or -1.
int number_from_environment(const char* name);

/// This process' rank as the launcher announced it; 0 without a launcher.
int launcher_rank();

/// How many processes the launcher announced; 1 without a launcher. Not of MPI: under `srun` without PMIx the launcher
/// starts several, and MPI sees one in each.
int launcher_ranks();

/// False where this process is known to be alone: one rank was announced, or none. True also for a rank of a launcher
/// that does not say how many there are.
bool launcher_may_connect_ranks();

}  // namespace vqlm
