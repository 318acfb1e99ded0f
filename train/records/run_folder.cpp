#include "train/records/run_folder.h"

#include <spdlog/fmt/fmt.h>

#include <vector>

#include "core/error.h"
#include "data/files/atomic_file.h"

namespace vqlm {

namespace fs = std::filesystem;

bool RunFolder::holds_run() const {
  return fs::exists(path_ / "config.toml") || fs::exists(path_ / "metrics.jsonl") ||
         (fs::exists(checkpoints()) && !fs::is_empty(checkpoints()));
}

void RunFolder::open(ExistingRun existing) const {
  if (existing == ExistingRun::refuse && holds_run()) {
    throw UsageError(
        fmt::format("run.dir = {}: holds a run already; --resume continues it, --force replaces it, or "
                    "choose another run.dir",
                    path_.string()));
  }
  make();
}

void RunFolder::make() const {
  std::error_code failure;
  fs::create_directories(checkpoints(), failure);
  if (failure) {
    throw Error(
        fmt::format("run.dir = {}: {}; choose a folder that can be written", path_.string(), failure.message()));
  }
}

void RunFolder::clear() const {
  try {
    for (const char* name : {"config.toml", "metrics.jsonl", "eval.json", "code_map.h5", "run.log"}) fs::remove(path_ / name);
    std::vector<fs::path> events;
    for (const auto& entry : fs::directory_iterator(path_)) {
      if (entry.path().filename().string().starts_with("events.")) events.push_back(entry.path());
    }
    for (const fs::path& path : events) fs::remove(path);
    fs::remove_all(checkpoints());
    fs::create_directories(checkpoints());
  } catch (const fs::filesystem_error& e) {
    throw Error(fmt::format("{}: the run there cannot be removed: {}; choose another run.dir", e.path1().string(),
                            e.code().message()));
  }
}

void RunFolder::write_config(const Config& config) const {
  write_file_atomically((path_ / "config.toml").string(), to_toml(config));
}

}  // namespace vqlm
