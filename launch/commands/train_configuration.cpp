#include "launch/commands/train_configuration.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>
#include <string_view>

#include "core/error.h"
#include "core/home_path.h"
#include "core/log.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/config/same_model.h"
#include "train/models/open_model.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;

bool is_named(const TrainArguments& options, std::string_view key) {
  return std::ranges::any_of(options.overrides,
                             [&](const std::string& text) { return text.starts_with(std::string(key) + "="); });
}

/// run.dir as the command line names it, or its default.
std::string named_run(const TrainArguments& options) {
  std::vector<std::string> folder;  // the last one wins
  std::ranges::copy_if(options.overrides, std::back_inserter(folder),
                       [](const std::string& text) { return text.starts_with("run.dir="); });
  return expand_home(load_config({}, folder).run.dir);
}

/// A run's folder may have moved, and run.dir in its config.toml is where it was: the run beside the file of --config is
/// what --resume means where run.dir holds none.
void follow_moved_run(Config& config, const TrainArguments& options) {
  if (!options.resumes() || !options.resume_from.empty() || options.config.empty() || is_named(options, "run.dir")) {
    return;
  }
  Config beside = config;
  beside.run.dir = fs::path(options.config).parent_path().string();
  if (beside.run.dir.empty()) beside.run.dir = ".";
  std::error_code not_there;
  if (list_checkpoints(RunFolder(beside).checkpoints()).empty() ||
      fs::equivalent(beside.run.dir, config.run.dir, not_there)) {
    return;
  }
  const bool moved = !RunFolder(config).holds_run();
  log::warn("{} is the configuration of a run that lies beside it, and run.dir = {} {}: going on with {}",
            options.config, config.run.dir, moved ? "holds none" : "holds another",
            moved ? beside.run.dir : config.run.dir);
  if (moved) config.run.dir = beside.run.dir;
}

/// The configuration of a run or a checkpoint on the ranks of this job: as near to the earlier grid as they allow.
Config own_configuration(const fs::path& file, const std::string& run, const TrainArguments& options,
                         const Environment& environment) {
  Config config = load_saved_config(file, options.overrides);
  config.run.dir = run;
  const int ranks = environment.mpi().size(), data = config.parallel.data;
  const bool data_named = is_named(options, "parallel.data") && data > 0;
  if (!data_named) config.parallel.data = 0;
  if (!is_named(options, "parallel.tensor"))
    config.parallel.tensor = data_named && ranks % data == 0 ? ranks / data : std::gcd(ranks, config.parallel.tensor);
  log::info("the configuration is {}", file.string());
  return config;
}

/// Throws Error where only some ranks see the file.
bool is_seen(const fs::path& file, const Environment& environment) {
  const int found = environment.mpi().count_ranks(fs::exists(file));
  if (found != 0 && found < environment.mpi().size())
    throw Error(fmt::format("{}: only {} of {} ranks see it; is the folder shared?", file.string(), found,
                            environment.mpi().size()));
  return found != 0;
}

Config of_what_goes_on(const TrainArguments& options, const Environment& environment) {
  const std::string run = named_run(options);
  if (options.resumes()) {
    const fs::path own = fs::path(run) / "config.toml";
    if (is_seen(own, environment)) return own_configuration(own, run, options, environment);
  }
  if (!options.resume_from.empty()) {
    const fs::path source = fs::path(expand_home(options.resume_from)) / "config.toml";
    if (!is_seen(source, environment))
      throw UsageError(fmt::format(
          "--resume-from {}: no config.toml is there; name a checkpoint (RUN/checkpoints/step-...) or a run's folder{}",
          options.resume_from, describe_runs_near(source.parent_path())));
    if (!is_named(options, "run.dir"))
      throw UsageError(
          fmt::format("--resume-from {}: name the folder of the new run, --set run.dir=FOLDER", options.resume_from));
    Config config = own_configuration(source, run, options, environment);
    if (!is_named(options, "run.name")) config.run.name.clear();
    return config;
  }
  Config config = load_config({}, options.overrides);
  if (config.data.trains()) return config;  // whether there is a checkpoint, the run finds out
  throw UsageError(fmt::format(
      "--resume: run.dir = {}: holds no run (no config.toml); name the run's folder, or a configuration with --config{}",
      run, describe_runs_near(run)));
}

}  // namespace

ExistingRun TrainArguments::existing() const {
  if (resumes() && resume != "true" && resume != "auto")
    throw UsageError(fmt::format(
        "--resume={}: choose --resume (a checkpoint must be there) or --resume=auto (start where there is none)",
        resume));
  if (resume == "true" && !resume_from.empty())
    throw UsageError(fmt::format(
        "--resume goes on in run.dir, --resume-from {} in a new one: give one of them, or --resume=auto to go on with "
        "the new one once it has a checkpoint",
        resume_from));
  if (resumes()) return resume == "auto" ? ExistingRun::resume_or_start : ExistingRun::resume;
  return force ? ExistingRun::replace : ExistingRun::refuse;
}

Config training_configuration(const TrainArguments& options, const Environment& environment) {
  const bool goes_on = options.resumes() || !options.resume_from.empty();
  Config config;
  if (goes_on && options.config.empty()) {
    config = of_what_goes_on(options, environment);
  } else if (!options.init.empty()) {
    const auto model = open_model(expand_home(options.init), Verify::no);  // whose files are verified when it is read
    config = load_config(options.config, options.overrides, config_of_model(*model));
  } else {
    config = load_config(options.config, options.overrides);
  }
  if (options.device) config.run.device = *options.device;
  follow_moved_run(config, options);
  return config;
}

namespace {

/// data.counted_text as well: whether it can change, the run finds out.
bool written_by_the_run(std::string_view key) {
  constexpr std::array<std::string_view, 4> keys = {"run.began_from", "run.head_since", "run.counted_samples",
                                                    "data.counted_text"};
  return std::ranges::find(keys, key) != keys.end();
}

}  // namespace

void tell_changes(const Config& config, const TrainArguments& options) {
  fs::path own = fs::path(config.run.dir) / "config.toml";
  if (!(options.resumes() && fs::exists(own))) own = fs::path(expand_home(options.resume_from)) / "config.toml";
  if (!(options.resumes() || !options.resume_from.empty()) || !fs::exists(own)) return;
  try {
    for (const KeyDifference& key : differences(config, load_saved_config(own)))
      if (!written_by_the_run(key.key)) log::info("{} = {}, before {}", key.key, key.now, key.saved);
  } catch (const Error& error) {  // the run's checkpoints have theirs
    log::warn("{}; what it said before cannot be told", error.what());
  }
}

}  // namespace vqlm
