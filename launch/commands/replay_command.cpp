// vqlm replay: a step of a run once more, from the checkpoint before it.
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "core/home_path.h"
#include "core/log.h"
#include "core/product_algorithms.h"
#include "launch/command_line.h"
#include "launch/commands/commands.h"
#include "launch/environment.h"
#include "train/config/config_body_check.h"
#include "train/run/training_inputs.h"
#include "train/tools/samples/replay.h"

namespace vqlm {
namespace {

struct ReplayArguments {
  std::string run;
  std::int64_t step = 0;
  std::size_t worst = 3;
  std::optional<DeviceKind> device;
};

void compare(const char* name, double now, std::optional<double> recorded) {
  if (!recorded) return;
  const bool same = now == *recorded || (std::isnan(now) && std::isnan(*recorded));
  fmt::print("{:<14} {:.17g}, in the run {:.17g}: {}\n", name, now, *recorded,
             same ? "the same to the bit" : fmt::format("differs by {:.3g}", now - *recorded));
}

void print(const ReplayedStep& replayed) {
  const StepMetrics& step = replayed.step;
  fmt::print("step {}: loss {:.6f}, gradient norm {:.6g}, learning rate {:.3e}{}\n", step.step, step.loss,
             step.grad_norm, step.lr, step.skipped ? "; the update was skipped" : "");
  compare("loss", step.loss, replayed.recorded_loss);
  compare("gradient norm", step.grad_norm, replayed.recorded_grad_norm);
  if (!replayed.recorded_loss) fmt::print("metrics.jsonl of the run has no such step to compare with\n");
  for (const ReplayedStep::Sample& sample : replayed.worst)
    fmt::print("loss {:.4f}: sample {}, {}\n", sample.loss.nll, sample.loss.position, sample.place);
}

void replay_step(const ReplayArguments& options, Environment& environment) {
  const std::filesystem::path run = expand_home(options.run);
  ReplayPlan plan = plan_replay(run, options.step);
  Config& config = plan.config;
  const int ranks = environment.mpi().size();
  const ParallelSection grid_of_run = config.parallel;
  config.parallel.data = 0;  // this job's
  config.parallel.tensor = std::gcd(ranks, config.parallel.tensor);
  if (options.device) config.run.device = *options.device;
  ShardSet shards = open_training_shards(config);
  mark_documents(config, shards.eos_id(), shards.glob());
  resolve(config, shards.vocab_size(), ranks);
  const auto backend = environment.make_backend(config.run);
  check_device(config, backend->activation_dtype());
  if (!config.run.products_file.empty() && product_algorithms_of(*backend) == nullptr) {
    if (environment.is_root())
      log::warn("run.products_file = {}: is for a GPU and passed over: numbers agree to rounding only",
                config.run.products_file);
    config.run.products_file.clear();
  }
  const ProcessGrid grid = environment.make_grid(*backend, config.parallel);
  if (environment.is_root()) {
    const std::int64_t steps = options.step - plan.done;
    log::info("{} step{} from {}", steps, steps == 1 ? "" : "s",
              !plan.checkpoint.empty() ? plan.checkpoint.string()
              : !plan.initial.empty()  ? plan.initial.string()
                                       : "the run's start");
    if (grid_of_run.data != config.parallel.data || grid_of_run.tensor != config.parallel.tensor)
      log::warn(
          "the run's grid was {} x {} ranks, this one is {} x {}: sums are added in another order, so that numbers "
          "agree to rounding only",
          grid_of_run.data, grid_of_run.tensor, config.parallel.data, config.parallel.tensor);
  }
  const ReplayedStep replayed = replay(*backend, grid, plan, std::move(shards), run, options.step, options.worst);
  if (environment.is_root()) print(replayed);
}

}  // namespace

void add_replay_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("replay", "Do a step of a run once more, from the checkpoint before it");
  auto options = std::make_shared<ReplayArguments>();
  command->add_option("--run", options->run, "the run's folder, which is left as it is")->required();
  command->add_option("--step", options->step, "the step, from 1")->required();
  command->add_option("--worst", options->worst,
                      "so many of its samples are named, those of the largest losses (default 3)");
  add_device_option(*command, options->device, "as in the run");
  command->footer(
      "The steps since the newest checkpoint before it are done again, with the samples, the rates and the arithmetic of the "
      "run: on\n"
      "the run's grid and device the loss and the gradient norm are the run's to the bit. Without such a checkpoint the "
      "run begins\n"
      "at its start (checkpoint.keep_every keeps some), or at what it began from.\n"
      "Examples:\n"
      "  vqlm replay --run runs/a --step 1200\n"
      "  mpirun -n 4 vqlm replay --run runs/a --step 1200 --worst 10");
  command->callback([options] { run_job([&](Environment& environment) { replay_step(*options, environment); }); });
}

}  // namespace vqlm
