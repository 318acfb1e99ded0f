// What vqlm train is asked for, and the configuration that follows: from a file, from the command line, from the run that goes
// on or from the model that a run starts from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/environment.h"
#include "train/config/config.h"
#include "train/records/run_folder.h"

namespace vqlm {

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string init;         // a model; empty: none
  std::string resume_from;  // a checkpoint, or a run; empty: none
  std::optional<DeviceKind> device;
  std::string resume;  // "true" (the run must be there), "auto" or empty: no
  bool force = false;
  std::string time_limit;

  bool resumes() const { return !resume.empty(); }
  /// Throws UsageError for another word than these, and for options that exclude each other.
  ExistingRun existing() const;
};

/// What --config and --set say, the device of --device included. Without --config a run that goes on has its own
/// configuration, or that of the run of --resume-from, on the ranks of this job. What is not said of the model and its head is as
/// in the model of --init. Throws Error where not all ranks find it.
Config training_configuration(const TrainArguments& options, const Environment& environment);

/// Logs which keys a run goes on with other values of.
void tell_changes(const Config& config, const TrainArguments& options);

}  // namespace vqlm
