// manifest.json: what a checkpoint folder holds, written last. A folder without a manifest, or with one that does not
// match its files, is not a checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace vqlm {

/// Where a run stands. Everything else (data order, RNG, schedule) follows from these numbers and the configuration.
struct TrainState {
  std::int64_t step = 0;     // optimizer steps done
  std::int64_t samples = 0;  // training samples consumed over all ranks: the loader's whole state
  std::int64_t tokens = 0;   // tokens trained on
};

struct Manifest {
  struct File {
    std::string name;  // relative to the folder
    std::uint64_t bytes = 0;
    std::string xxh3;  // XXH3 64-bit of the contents, 16 hex digits
  };
  TrainState state;
  std::vector<File> files;
};

/// Lists the regular files of `folder` and writes manifest.json there, with a hash of its own. Files that `known` names are
/// durable already, and have the size and hash that it says; the others are hashed and made durable here. Throws Error
/// naming the file.
void write_manifest(const std::filesystem::path& folder, const TrainState& state,
                    const std::vector<Manifest::File>& known = {});
/// Throws Error naming the file and what is wrong with it.
Manifest read_manifest(const std::filesystem::path& folder);

}  // namespace vqlm
