#include "train/records/run_folder.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "data/files/atomic_file.h"
#include "train/config/nearest_name.h"

namespace vqlm {

namespace fs = std::filesystem;

bool RunFolder::holds_run() const {
  return fs::exists(path_ / "config.toml") || fs::exists(path_ / "metrics.jsonl") ||
         (fs::exists(checkpoints()) && !fs::is_empty(checkpoints()));
}

bool RunFolder::holds_checkpoint() const {
  return fs::exists(path_ / "manifest.json") || (fs::exists(checkpoints()) && !fs::is_empty(checkpoints()));
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
    for (const char* name : {"config.toml", "metrics.jsonl", "eval.json", "code_map.h5", "run.log", "track.json"})
      fs::remove(path_ / name);
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

namespace {

/// The runs that are folders of `folder`; none where it cannot be read.
std::vector<fs::path> runs_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(folder, unreadable)) {
    std::error_code failure;
    if (fs::exists(entry.path() / "config.toml", failure) && fs::is_directory(entry.path() / "checkpoints", failure))
      found.push_back(entry.path());
  }
  return found;
}

}  // namespace

std::string describe_runs_near(const fs::path& folder) {
  std::vector<fs::path> runs = runs_in(folder);
  fs::path around = folder.has_filename() ? folder : folder.parent_path();  // without a last /
  const std::string name = around.filename().string();
  while (runs.empty() && around.has_relative_path()) {
    around = around.parent_path();
    std::error_code failure;
    if (!fs::exists(around.empty() ? fs::path(".") : around, failure)) continue;
    runs = runs_in(around.empty() ? fs::path(".") : around);
    break;
  }
  if (runs.empty()) return "";
  std::ranges::sort(runs, {},
                    [&](const fs::path& run) { return std::pair(edit_distance(name, run.filename().string()), run); });
  constexpr std::size_t most = 4;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(most, runs.size()); ++i) names.push_back(runs[i].lexically_normal().string());
  return fmt::format("; runs near it: {}{}", fmt::join(names, ", "),
                     runs.size() > most ? fmt::format(" and {} more", runs.size() - most) : "");
}

}  // namespace vqlm
