// Whether the folder of a run is the same on all hosts.
#pragma once

#include <filesystem>
#include <string>

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

/// Whether the file comes to hold `word` within so many seconds, as this host sees it.
bool appears_with(const std::filesystem::path& file, const std::string& word, double patience_seconds);

/// How long a training waits, unless VQLM_SHARED_FOLDER_SECONDS says otherwise.
constexpr double shared_folder_seconds = 90;

/// Throws Error, on every rank, where a rank does not see within `patience_seconds` what rank 0 writes to `folder`: a network
/// file system may show a new file a minute late, a disk of another host never does. The folder exists where rank 0 is, which leaves
/// nothing in it. Collective.
void require_shared_folder(Backend& backend, Communicator& world, const std::filesystem::path& folder,
                           double patience_seconds);

}  // namespace vqlm
