#include "train/run/shared_folder.h"

#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/host_collectives.h"
#include "data/files/atomic_file.h"
#include "train/engine/stopwatch.h"

namespace vqlm {
namespace {

bool holds(const std::filesystem::path& file, const std::string& word) {
  try {
    return read_file(file.string()) == word;
  } catch (const Error&) {  // not there, or not yet
    return false;
  }
}

}  // namespace

bool appears_with(const std::filesystem::path& file, const std::string& word, double patience_seconds) {
  const double begin = wall_seconds();
  while (!holds(file, word)) {
    if (wall_seconds() - begin >= patience_seconds) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

void require_shared_folder(Backend& backend, Communicator& world, const std::filesystem::path& folder,
                           double patience_seconds) {
  if (world.size() == 1) return;
  const std::filesystem::path file = folder / "seen-by-all";
  // A word of this call: on a host's own disk the file of an earlier one may lie.
  std::vector<std::int64_t> random{static_cast<std::int64_t>(std::random_device()())};
  if (world.rank() == 0) write_file_atomically(file.string(), std::to_string(random.front()));
  broadcast_from(backend, world, 0, random);
  const std::string word = std::to_string(random.front());
  const bool seen = appears_with(file, word, patience_seconds);
  const std::string blind = first_text(backend, world, seen ? "" : fmt::format("rank {} does not see", world.rank()));
  if (world.rank() == 0) {
    std::error_code ignored;  // it does no harm
    std::filesystem::remove(file, ignored);
  }
  if (blind.empty()) return;
  throw Error(fmt::format(
      "run.dir = {}: {} what rank 0 wrote there: choose a run.dir on a file system that all hosts share (NFS, Lustre), under "
      "the same path everywhere",
      folder.string(), blind));
}

}  // namespace vqlm
