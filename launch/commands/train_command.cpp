// vqlm train: a configuration becomes a run folder.
#include <spdlog/fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "core/home_path.h"
#include "core/log.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "launch/host.h"
#include "launch/run_log.h"
#include "launch/signals.h"
#include "train/config/same_model.h"
#include "train/engine/human_bytes.h"
#include "train/engine/plan.h"
#include "train/run/training_run.h"

namespace vqlm {
namespace {

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string init;
  std::optional<DeviceKind> device;
  bool resume = false;
  bool force = false;
  std::string time_limit;

  ExistingRun existing() const {
    if (resume) return ExistingRun::resume;
    return force ? ExistingRun::replace : ExistingRun::refuse;
  }
};

/// A run that does not fit on the GPU is refused before it allocates anything, with the settings that shrink it; one that
/// fits gets its memory as one piece.
void reserve_device_memory(const Backend& backend, const Environment& environment, const Config& config,
                           const TrainingInputs& inputs) {
  if (backend.host_accessible()) return;
  const int device = environment.gpu();
  const CudaMemory memory = cuda_memory(device);
  PlanOptions options;
  options.activation = backend.activation_dtype();
  options.map = inputs.map ? &*inputs.map : nullptr;
  options.rank = environment.mpi().rank();
  const std::size_t available = memory.free + memory.pool_reserved - memory.pool_used;
  const std::size_t reserve = std::min(available, unaccounted_bytes(memory.total));
  const MemoryPlan plan = require_memory(config, options, available - reserve);
  reserve_cuda_memory(device, memory.pool_used + plan.total());
  const CudaMemory now = cuda_memory(device);
  if (now.pool_reserved == 0) {
    log::info("device memory: {} of {} free; the run takes {} of it block by block",
              human_bytes(static_cast<double>(now.free)), human_bytes(static_cast<double>(now.total)),
              human_bytes(static_cast<double>(plan.total())));
    return;
  }
  log::info("device memory: {} in the run's pool, {} of {} left for libraries and scratch",
            human_bytes(static_cast<double>(now.pool_reserved)), human_bytes(static_cast<double>(now.free)),
            human_bytes(static_cast<double>(now.total)));
}

/// Who trains here, for a second job that wants to.
std::string describe_job() {
  const char* slurm_job = std::getenv("SLURM_JOB_ID");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return fmt::format("host {}, process {}, since {:%Y-%m-%d %H:%M:%S}{}", describe_host().name, ::getpid(), local,
                     slurm_job == nullptr ? "" : fmt::format(", Slurm job {}", slurm_job));
}

bool is_named(const TrainArguments& options, std::string_view key) {
  return std::ranges::any_of(options.overrides,
                             [&](const std::string& text) { return text.starts_with(std::string(key) + "="); });
}

/// A run's folder may have moved, and run.dir in its config.toml is where it was: the run beside the file of --config is
/// what --resume means where run.dir holds none.
void follow_moved_run(Config& config, const TrainArguments& options) {
  if (!options.resume || options.config.empty() || is_named(options, "run.dir")) return;
  Config beside = config;
  beside.run.dir = std::filesystem::path(options.config).parent_path().string();
  if (beside.run.dir.empty()) beside.run.dir = ".";
  std::error_code not_there;
  if (list_checkpoints(RunFolder(beside).checkpoints()).empty() ||
      std::filesystem::equivalent(beside.run.dir, config.run.dir, not_there)) {
    return;
  }
  const bool moved = !RunFolder(config).holds_run();
  log::warn("{} is the configuration of a run that lies beside it, and run.dir = {} {}: going on with {}",
            options.config, config.run.dir, moved ? "holds none" : "holds another",
            moved ? beside.run.dir : config.run.dir);
  if (moved) config.run.dir = beside.run.dir;
}

/// What --config and --set say. --resume without --config means the run's own configuration, on the ranks of this job.
/// Throws Error where not all ranks find it.
Config configuration(const TrainArguments& options, const Environment& environment) {
  if (!options.resume || !options.config.empty()) return load_config(options.config, options.overrides);
  std::vector<std::string> folder;  // the last one wins
  std::ranges::copy_if(options.overrides, std::back_inserter(folder),
                       [](const std::string& text) { return text.starts_with("run.dir="); });
  const std::string run = expand_home(load_config({}, folder).run.dir);
  const std::filesystem::path own = std::filesystem::path(run) / "config.toml";
  const int found = environment.mpi().count_ranks(std::filesystem::exists(own));
  if (found == 0) {
    Config config = load_config({}, options.overrides);
    if (!config.data.train.empty()) return config;
    throw UsageError(
        fmt::format("--resume: run.dir = {}: holds no run (no config.toml); name the run's folder, or a "
                    "configuration with --config",
                    run));
  }
  if (found < environment.mpi().size())
    throw Error(fmt::format("{}: only {} of {} ranks see it; is the folder shared?", own.string(), found,
                            environment.mpi().size()));
  Config config = load_saved_config(own, options.overrides);
  config.run.dir = run;
  // The grid is this job's, as near to the earlier one as its ranks allow.
  const int ranks = environment.mpi().size(), data = config.parallel.data;
  const bool data_named = is_named(options, "parallel.data") && data > 0;
  if (!data_named) config.parallel.data = 0;
  if (!is_named(options, "parallel.tensor"))
    config.parallel.tensor = data_named && ranks % data == 0 ? ranks / data : std::gcd(ranks, config.parallel.tensor);
  log::info("the configuration is {}", own.string());
  return config;
}

/// Which keys a run goes on with other values of.
void tell_changes(const Config& config, const TrainArguments& options) {
  const std::filesystem::path own = std::filesystem::path(config.run.dir) / "config.toml";
  if (!options.resume || !std::filesystem::exists(own)) return;
  try {
    for (const KeyDifference& key : differences(config, load_saved_config(own)))
      log::info("{} = {}, before {}", key.key, key.now, key.saved);
  } catch (const Error& error) {  // the run's checkpoints have theirs
    log::warn("{}; what it said before cannot be told", error.what());
  }
}

/// The steps done, and why there are no more of them yet.
void report_end(TrainOutcome outcome, std::int64_t steps, const TrainArguments& options) {
  if (outcome == TrainOutcome::stopped) {
    log::info("stopped by a signal after step {}; continue with --resume", steps);
  } else if (outcome == TrainOutcome::out_of_time) {
    log::info("left after step {}, saved, before --time-limit {}; continue with --resume", steps, options.time_limit);
  }
}

/// Returns the exit code. run_log: where this rank reports, else null.
int train_logged(const TrainArguments& options, Environment& environment, RunLog* run_log, const TimeLimit& limit,
                 const std::function<bool()>& stop_requested) {
  Config config = configuration(options, environment);
  if (options.device) config.run.device = *options.device;
  follow_moved_run(config, options);
  ShardSet shards = open_training_shards(config);
  resolve(config, shards.vocab_size(), environment.mpi().size());
  const auto backend = environment.make_backend(config.run.device, config.run.threads);
  check_device(config, backend->activation_dtype());
  const ProcessGrid grid = environment.make_grid(*backend, config.parallel);
  log::info("back end: {}", backend->description());
  if (environment.is_root()) tell_changes(config, options);

  TrainingRun run(
      *backend, grid, config, std::move(shards),
      {.existing = options.existing(),
       .initial = options.init,
       .job = describe_job(),
       .terminal = environment.terminal(),
       .on_records =
           [&](const std::filesystem::path& folder) {
             run_log->begin(folder / "run.log",
                            fmt::format("{}; {} ranks of {} threads", describe_job(), environment.mpi().size(),
                                        environment.threads(config.run.threads)));
           },
       .before_allocation =
           [&](const TrainingInputs& inputs) { reserve_device_memory(*backend, environment, config, inputs); }});
  const TrainState& state = run.trainer().state();
  if (run.has_nothing_to_do()) {
    log::info("{}: has {} of {} steps already; raise train.steps to go on", config.run.dir, state.step,
              config.train.steps);
    return 0;
  }
  const TrainOutcome outcome = run.train(stop_requested, limit);
  report_end(outcome, state.step, options);
  return outcome == TrainOutcome::finished ? 0 : unfinished_exit_code;
}

int train(const TrainArguments& options, Environment& environment) {
  const TimeLimit limit = options.time_limit.empty() ? TimeLimit() : TimeLimit(parse_duration(options.time_limit));
  const std::function<bool()> stop_requested = catch_stop_signals();
  std::optional<RunLog> run_log;
  if (environment.is_root()) run_log.emplace();
  try {
    return train_logged(options, environment, run_log ? &*run_log : nullptr, limit, stop_requested);
  } catch (const std::exception& error) {  // whoever catches it prints it
    if (run_log) run_log->note(error.what());
    throw;
  }
}

}  // namespace

void add_train_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("train", "Train a model on token shards, alone or under mpirun");
  auto options = std::make_shared<TrainArguments>();
  command->add_option("--config", options->config, "TOML file; every key has a default but data.train");
  command->add_option("--set", options->overrides, "override one key: section.key=value (may be repeated)")
      ->allow_extra_args(false);
  add_device_option(*command, options->device, "run.device");
  auto* resume = command->add_flag(
      "--resume", options->resume,
      "continue the run in run.dir from its newest checkpoint, on any number of ranks; without --config "
      "by the run's own");
  command
      ->add_option("--init", options->init,
                   "start from this model's parameters: a checkpoint, a run folder or a Hugging Face folder")
      ->type_name("MODEL")
      ->excludes(resume);
  command->add_flag("--force", options->force, "replace the run in run.dir")->excludes(resume);
  command->add_option("--time-limit", options->time_limit,
                      "save and leave with exit code 75 before this time is over, counted from the start: seconds, "
                      "90m, 12h, 23:55:00 or 1-12:00:00");
  command->footer(
      "The ranks of mpirun form a grid of parallel.data x parallel.tensor. SIGTERM, SIGUSR1 and Ctrl-C save "
      "a checkpoint\n"
      "and end the run with exit code 75 (finished: 0), also through launch/mpirun.sh. A bare mpirun kills its ranks on "
      "SIGTERM "
      "and Ctrl-C:\n"
      "send it SIGUSR1.\n"
      "Examples:\n"
      "  vqlm train --config configs/smoke.toml --set data.train='shards/train-*.h5' --set run.dir=runs/a\n"
      "  mpirun -n 4 vqlm train --config configs/demo-vq.toml --set run.dir=runs/b\n"
      "  mpirun -n 2 vqlm train --set run.dir=runs/b --resume\n"
      "  vqlm train --config CKPT/config.toml --init CKPT --set data.train='shards/train-*.h5' --set "
      "run.dir=runs/c\n"
      "Keys (default):\n" +
      describe_keys());
  command->callback(
      [options, &exit_code] { run_job([&](Environment& environment) { exit_code = train(*options, environment); }); });
}

}  // namespace vqlm
