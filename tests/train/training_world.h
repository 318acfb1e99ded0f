// What the multi-rank tests of training share: the world's grid and a folder with shards that all ranks see.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/host_collectives.h"
#include "core/log.h"
#include "tests/data/temporary_folder.h"
#include "tests/ranks.h"
#include "tests/train/tiny_run.h"

namespace vqlm::testing {

struct GridSize {
  int data;
  int tensor;
  std::string name() const { return std::to_string(data) + "x" + std::to_string(tensor); }
};

/// The grids of this many ranks over which 4 heads divide.
inline std::vector<GridSize> grids_of(int ranks) {
  std::vector<GridSize> grids;
  for (int tensor : {1, 2, 4}) {
    if (ranks % tensor == 0) grids.push_back({ranks / tensor, tensor});
  }
  return grids;
}

/// Those on which a resumed run is compared with a whole one: four ranks as 2 x 2 only, for their other grids save and read
/// what those of two ranks do.
inline std::vector<GridSize> resumed_grids_of(int ranks) {
  return ranks == 4 ? std::vector<GridSize>{{2, 2}} : grids_of(ranks);
}

class TrainingWorld {
 public:
  explicit TrainingWorld(std::int64_t vocabulary, int documents = 120)
      : backend(make_cpu_backend(1)), alone(*backend), world(session(), *backend, 0, 1) {
    log::set_level(log::level::warn);
    shards = shared_path("shards");
    if (session().rank() == 0) {
      std::filesystem::create_directories(shards);
      write_zipf_shards(shards, "train", documents, vocabulary);
      write_zipf_shards(shards, "heldout", 6, vocabulary);
    }
    world.world().barrier();
  }
  TrainingWorld(const TrainingWorld&) = delete;
  TrainingWorld& operator=(const TrainingWorld&) = delete;
  // The folder is the first rank's: nobody may leave before all are done with it.
  ~TrainingWorld() { world.world().barrier(); }

  /// A path in the first rank's temporary folder, known to all ranks.
  std::filesystem::path shared_path(const std::string& name) {
    const std::string own = folder.path();
    std::vector<std::uint8_t> bytes(own.begin(), own.end());
    broadcast_from(*backend, world.world(), 0, bytes);
    return std::filesystem::path(std::string(bytes.begin(), bytes.end())) / name;
  }

  TemporaryFolder folder;
  std::unique_ptr<Backend> backend;
  ProcessGrid alone;
  ProcessGrid world;
  std::filesystem::path shards;
};

}  // namespace vqlm::testing
