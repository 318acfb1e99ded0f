// vqlm train: a configuration becomes a run folder.
#include <spdlog/fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "core/log.h"
#include "train/codes/code_map_file.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "launch/host.h"
#include "launch/signals.h"
#include "train/run/resume.h"
#include "train/models/initial_model.h"
#include "train/models/loaded_model.h"
#include "train/models/open_model.h"
#include "train/tools/plan/plan.h"
#include "train/tools/plan/plan_report.h"
#include "train/records/run_lock.h"
#include "train/run/time_limit.h"
#include "train/run/trainer.h"

namespace vqlm {
namespace {

struct Options {
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
  return fmt::format("host {}, process {}, since {:%Y-%m-%d %H:%M:%S}{}", describe_host().name, ::getpid(),
                     local, slurm_job == nullptr ? "" : fmt::format(", Slurm job {}", slurm_job));
}

/// The steps done, and why there are no more of them yet.
void report_end(TrainOutcome outcome, std::int64_t steps, const Options& options) {
  if (outcome == TrainOutcome::stopped) {
    log::info("stopped by a signal after step {}; continue with --resume", steps);
  } else if (outcome == TrainOutcome::out_of_time) {
    log::info("left after step {}, saved, before --time-limit {}; continue with --resume", steps,
              options.time_limit);
  }
}

void train(const Options& options, Environment& environment) {
  const TimeLimit limit =
      options.time_limit.empty() ? TimeLimit() : TimeLimit(parse_duration(options.time_limit));
  const auto stop_requested = catch_stop_signals();
  Config config = load_config(options.config, options.overrides);
  if (options.device) config.run.device = *options.device;
  ShardSet shards = open_training_shards(config);
  resolve(config, shards.vocab_size(), environment.mpi().size());
  const auto backend = environment.make_backend(config.run.device, config.run.threads);
  check_device(config, backend->activation_dtype());
  const ProcessGrid grid = environment.make_grid(*backend, config.parallel);
  log::info("back end: {}", backend->description());

  const RunFolder folder(config);
  std::optional<RunLock> lock;
  if (environment.is_root()) {
    folder.make();
    lock.emplace(folder.path(), describe_job());
    folder.open(options.existing());
  }
  grid.world().barrier();
  std::optional<CheckpointReader> resumed;
  if (options.resume) {
    resumed = open_newest_checkpoint(*backend, grid, folder, config, shards);
    if (!resumed) log::info("{}: no checkpoint to resume from; starting at step 0", folder.path().string());
  }
  std::unique_ptr<ModelSource> initial;
  if (!options.init.empty()) {
    initial = open_model(options.init, environment.is_root() ? Verify::yes : Verify::no);
    check_initial_model(config, *initial);
    check_tokenizer(*initial, shards);
    log::info("parameters of {} ({})", initial->path().string(), initial->description());
  }
  std::optional<CodeMap> map = resumed ? resumed->code_map() : std::nullopt;
  if (initial) map = initial->code_map();
  const TrainingInputs inputs =
      make_training_inputs(*backend, grid, config, std::move(shards), std::move(map));
  reserve_device_memory(*backend, environment, config, inputs);
  Trainer trainer(*backend, grid, config, inputs, resumed ? &*resumed : nullptr, initial.get());
  std::optional<Metrics> metrics;
  if (trainer.state().step >= config.train.steps) {
    log::info("{}: has {} of {} steps already; raise train.steps to go on", folder.path().string(),
              trainer.state().step, config.train.steps);
    return;
  }
  if (environment.is_root()) {
    // Only now is it certain that the new run starts, so only now may an old one go.
    if (options.force) folder.clear();
    folder.write_config(config);
    if (inputs.map) save_code_map((folder.path() / "code_map.h5").string(), *inputs.map);
    metrics.emplace(config, trainer.state().step, environment.terminal());
  }
  const TrainOutcome outcome = trainer.run(metrics ? &*metrics : nullptr, stop_requested, limit);
  report_end(outcome, trainer.state().step, options);
}

}  // namespace

void add_train_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train", "Train a model on token shards, alone or under mpirun");
  auto options = std::make_shared<Options>();
  command->add_option("--config", options->config, "TOML file; every key has a default but data.train");
  command->add_option("--set", options->overrides, "override one key: section.key=value (may be repeated)")
      ->allow_extra_args(false);
  add_device_option(*command, options->device, "run.device");
  auto* resume =
      command->add_flag("--resume", options->resume,
                        "continue the run in run.dir from its newest checkpoint, on any number of ranks");
  command
      ->add_option("--init", options->init,
                   "start from this model's parameters: a checkpoint, a run folder or a Hugging Face folder")
      ->type_name("MODEL")
      ->excludes(resume);
  command->add_flag("--force", options->force, "replace the run in run.dir")->excludes(resume);
  command->add_option(
      "--time-limit", options->time_limit,
      "save and leave with exit code 0 before this time is over, counted from the start: seconds, "
      "90m, 12h, 23:55:00 or 1-12:00:00");
  command->footer(
      "The ranks of mpirun form a grid of parallel.data x parallel.tensor. SIGTERM, SIGUSR1 and Ctrl-C save "
      "a checkpoint\n"
      "and end the run with exit code 0, also through launch/mpirun.sh. A bare mpirun kills its ranks on "
      "SIGTERM "
      "and Ctrl-C:\n"
      "send it SIGUSR1.\n"
      "Examples:\n"
      "  vqlm train --config configs/smoke.toml --set data.train='shards/train-*.h5' --set run.dir=runs/a\n"
      "  mpirun -n 4 vqlm train --config configs/demo-vq.toml --set run.dir=runs/b\n"
      "  mpirun -n 2 vqlm train --config configs/demo-vq.toml --set run.dir=runs/b --resume\n"
      "  vqlm train --config CKPT/config.toml --init CKPT --set data.train='shards/train-*.h5' --set "
      "run.dir=runs/c\n"
      "Keys (default):\n" +
      describe_keys());
  command->callback([options] { run_job([&](Environment& environment) { train(*options, environment); }); });
}

}  // namespace vqlm
