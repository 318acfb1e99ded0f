// The checks of vqlm selftest that need a folder: is it the same one for all ranks, does it keep what is written, and does a
// run in it survive?
#pragma once

#include <filesystem>
#include <string>

#include "core/backend.h"
#include "dist/process_grid.h"
#include "train/tools/selftest/doctor.h"

namespace vqlm {

/// A folder of our own inside the user's; it goes with this object, and nothing else does.
class SelftestFolder {
 public:
  /// Collective: rank 0 makes `parent`/vqlm-selftest-... and every rank gets its path. Throws Error (the same on every
  /// rank) where it cannot be made.
  SelftestFolder(Backend& backend, Communicator& world, const std::filesystem::path& parent);
  /// Rank 0 removes it; the other ranks must have ended their work in it.
  ~SelftestFolder();
  SelftestFolder(const SelftestFolder&) = delete;
  SelftestFolder& operator=(const SelftestFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool remove_;
};

/// Every rank sees what rank 0 wrote, at the latest after `patience_seconds` (caches of network file systems are late).
/// Collective.
DoctorCheck check_shared_folder(Communicator& world, const std::filesystem::path& folder, double patience_seconds = 10);

/// A lock that rank 0 holds is refused to the last rank (to a second opening of the file where there is one rank), and given
/// once it is free. Collective.
DoctorCheck check_file_locks(Communicator& world, const std::filesystem::path& folder);

/// Writes 32 MiB, makes them durable, reads and compares them; rate: of writing with fsync, bytes a second. Not collective:
/// ranks do it at once, as they save a checkpoint.
DoctorCheck check_disk(int rank, const std::filesystem::path& folder);

/// A tiny run over all ranks: saved twice, continued from the first checkpoint to the second one's step: the same bits on
/// every rank. Then each rank file of the newest checkpoint (the first 8) is damaged in turn and must be refused, and --resume
/// must fall back to the older one and arrive at the same bits again. Collective, in a folder that all ranks share.
DoctorCheck check_resume(Backend& backend, const ProcessGrid& grid, const std::filesystem::path& folder);
DoctorCheck check_damage(Backend& backend, const ProcessGrid& grid, const std::filesystem::path& folder);

}  // namespace vqlm
