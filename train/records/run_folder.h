// A run's folder: config.toml, run.log, metrics.jsonl, event files, checkpoints/. Nothing in it is ever overwritten unasked.
#pragma once

#include <filesystem>
#include <string>

#include "train/config/config.h"

namespace vqlm {

/// What to do where the folder already holds a run, and, with resume, where it holds none to go on with: refuse that.
enum class ExistingRun { refuse, resume, resume_or_start, replace };

class RunFolder {
 public:
  explicit RunFolder(const Config& config) : path_(config.run.dir) {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  /// The run of an earlier job is here.
  bool holds_run() const;
  /// Something that may be a checkpoint of it is here.
  bool holds_checkpoint() const;

  /// One rank only. Makes the folder; whoever locks it (RunLock) does this first. Throws Error where it cannot be made.
  void make() const;
  /// One rank only. Makes the folder; with ExistingRun::refuse throws UsageError where it holds a run. Throws Error where
  /// the folder cannot be written.
  void open(ExistingRun existing) const;
  /// One rank only. Removes the files of the run in the folder and nothing else; for ExistingRun::replace, once it is
  /// certain that the next run starts.
  void clear() const;
  /// One rank only. Writes config.toml (temporary name, then rename).
  void write_config(const Config& config) const;

 private:
  std::filesystem::path path_;
};

/// For whoever named a run that is not there: "; runs near it: A, B", the most similar names first, or "" where there are
/// none. They are looked for in the folder itself and in the nearest folder around it that exists.
std::string describe_runs_near(const std::filesystem::path& folder);

}  // namespace vqlm
