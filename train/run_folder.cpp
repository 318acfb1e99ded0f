#include "train/run_folder.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "data/atomic_file.h"

namespace vqlm {

namespace fs = std::filesystem;

bool RunFolder::holds_run() const {
  return fs::exists(path_ / "config.toml") || fs::exists(path_ / "metrics.jsonl") ||
         (fs::exists(checkpoints()) && !fs::is_empty(checkpoints()));
}

void RunFolder::open(ExistingRun existing) const {
  try {
    if (holds_run()) {
      if (existing == ExistingRun::refuse) {
        throw UsageError(
            fmt::format("run.dir = {}: holds a run already; --resume continues it, --force replaces it, or "
                        "choose another "
                        "run.dir",
                        path_.string()));
      }
      if (existing == ExistingRun::replace) {
        fs::remove(path_ / "config.toml");
        fs::remove(path_ / "metrics.jsonl");
        fs::remove_all(checkpoints());
        for (const auto& entry : fs::directory_iterator(path_)) {
          if (entry.path().filename().string().starts_with("events.")) fs::remove(entry.path());
        }
      }
    }
    fs::create_directories(checkpoints());
  } catch (const fs::filesystem_error& e) {
    throw Error(fmt::format("run.dir = {}: {}; choose a folder that can be written", path_.string(),
                            e.code().message()));
  }
}

void RunFolder::write_config(const Config& config) const {
  write_file_atomically((path_ / "config.toml").string(), to_toml(config));
}

}  // namespace vqlm
