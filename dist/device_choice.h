// Which of the GPUs that it sees a rank takes.
#pragma once

#include <string>
#include <vector>

#include "dist/mpi_session.h"

namespace vqlm {

/// Behind the PCI id of a GPU that is a slice of its card (Multi-Instance GPU): such slices cannot talk to each other.
inline constexpr const char* mig_mark = "+MIG";

/// visible[r]: the PCI ids of the GPUs that rank r of a node sees, by device index. Returns each rank's device index: the
/// first GPU that no rank before it has taken. So rank r takes GPU r where all ranks see all of them, and each takes its own
/// where the launcher hands them out (srun --gpus-per-task=1). 0 for a rank that sees none. Throws UsageError, with the
/// counts and the way out, where ranks would share a GPU: they fail late and obscurely then.
std::vector<int> choose_devices(const std::vector<std::vector<std::string>>& visible);

/// This rank's device index; `visible`: what it sees itself. To be called before any back end or communicator is made.
/// Collective over the ranks of a node, on all of which it throws alike.
int choose_device(const MpiSession& session, const std::vector<std::string>& visible);

}  // namespace vqlm
