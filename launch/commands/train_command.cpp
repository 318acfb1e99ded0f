// vqlm train: a configuration becomes a run folder.
#include <spdlog/fmt/chrono.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "core/home_path.h"
#include "core/log.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/commands/train_configuration.h"
#include "launch/environment.h"
#include "launch/host.h"
#include "launch/run_log.h"
#include "launch/signals.h"
#include "train/config/config_body_check.h"
#include "train/engine/human_bytes.h"
#include "train/engine/plan.h"
#include "train/engine/products_in_use.h"
#include "train/run/training_run.h"

namespace vqlm {
namespace {

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
  Config config = training_configuration(options, environment);
  ShardSet shards = open_training_shards(config);
  mark_documents(config, shards.eos_id(), shards.glob());
  resolve(config, shards.vocab_size(), environment.mpi().size());
  const auto backend = environment.make_backend(config.run);
  check_device(config, backend->activation_dtype());
  const ProcessGrid grid = environment.make_grid(*backend, config.parallel);
  read_products_file(*backend, grid.world(),
                     config.run.products_file);  // what is wrong with it is told before all else
  environment.watch_training(config.parallel);
  log::info("back end: {}", backend->description());
  if (environment.mpi().size() > 1) log::info("{}", environment.describe_hosts());
  if (environment.is_root()) tell_changes(config, options);

  TrainingRun run(
      *backend, grid, config, std::move(shards),
      {.existing = options.existing(),
       .initial = expand_home(options.init),
       .forked = expand_home(options.resume_from),
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
      "continue the run in run.dir from its newest checkpoint, on any number of ranks; without --config by the run's own. "
      "It is an error where there is no checkpoint; --resume=auto starts a run there");
  auto* fork = command
                   ->add_option("--resume-from", options->resume_from,
                                "start a new run in run.dir from a checkpoint, or the newest one of a run, with its "
                                "optimizer, step and place in the text; without --config by its configuration")
                   ->type_name("CHECKPOINT");
  command
      ->add_option(
          "--init", options->init,
          "start at step 0 from this model's parameters alone: a checkpoint, a run folder or a Hugging Face folder. "
          "The optimizer and the order of samples begin anew. What the configuration does not say of model.* and head.* is "
          "the model's; what it says must agree")
      ->type_name("MODEL")
      ->excludes(resume)
      ->excludes(fork);
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
      "Keys (default):\n" +
      describe_keys() +
      "Examples:\n"
      "  vqlm train --config configs/smoke.toml --set data.train='shards/train-*.h5' --set run.dir=runs/a\n"
      "  mpirun -n 4 vqlm train --config configs/demo-vq.toml --set run.dir=runs/b\n"
      "  mpirun -n 2 vqlm train --set run.dir=runs/b --resume\n"
      "  vqlm train --resume-from runs/b/checkpoints/step-00000480 --set run.dir=runs/d --set optim.lr=1e-4\n"
      "  vqlm train --init SmolLM2-135M --set data.train='shards/train-*.h5' --set data.seq_len=1024 --set run.dir=runs/c");
  command->callback(
      [options, &exit_code] { run_job([&](Environment& environment) { exit_code = train(*options, environment); }); });
}

}  // namespace vqlm
