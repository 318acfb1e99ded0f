#include "train/tools/samples/replay.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "train/codes/code_map_file.h"
#include "train/models/changed_head.h"
#include "train/models/open_model.h"
#include "train/run/resume.h"
#include "train/run/trainer.h"

namespace vqlm {
namespace {

void find_recorded(const std::filesystem::path& metrics, ReplayedStep& replayed) {
  std::ifstream lines(metrics);
  const auto number = [](const nlohmann::json& json, const char* name) {
    return json.at(name).is_number() ? json.at(name).get<double>() : std::nan("");
  };
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("loss") || json.at("step") != replayed.step.step) continue;
    replayed.recorded_loss = number(json, "loss");
    replayed.recorded_grad_norm = number(json, "grad_norm");
  }
}

/// The first step of metrics.jsonl; 1 where it has none.
std::int64_t first_step(const std::filesystem::path& metrics) {
  std::ifstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.contains("loss")) return json.at("step");
  }
  return 1;
}

/// What the run began from, where no checkpoint of its own lies before the step: another run's (--resume-from), or a model
/// (--init).
void begin_elsewhere(const std::filesystem::path& run, std::int64_t step, ReplayPlan& plan) {
  const std::filesystem::path from = plan.config.run.began_from;
  if (!plan.checkpoint.empty() || from.empty()) return;
  if (!std::filesystem::exists(from))
    throw Error(
        fmt::format("{}: the run began from it, and no checkpoint of its own lies before step {}; bring it back",
                    from.string(), step));
  if (!std::filesystem::exists(run / "metrics.jsonl"))
    throw Error(fmt::format("{}: has no metrics.jsonl, which tells with which step the run began from {}", run.string(),
                            from.string()));
  const std::int64_t first = first_step(run / "metrics.jsonl");
  if (first == 1) {
    plan.initial = from;
    return;
  }
  if (step < first)
    throw UsageError(fmt::format("--step {}: the run began from {} with step {}; replay the run that this is of", step,
                                 from.string(), first));
  plan.checkpoint = from;
  plan.done = first - 1;
}

}  // namespace

ReplayPlan plan_replay(const std::filesystem::path& run, std::int64_t step) {
  ReplayPlan plan;
  std::filesystem::path config = run / "config.toml";
  if (!std::filesystem::exists(config))
    throw Error(fmt::format("{}: is no run's folder (no config.toml); name the run.dir of a training", run.string()));
  for (const ListedCheckpoint& checkpoint : list_checkpoints(run / "checkpoints")) {
    if (checkpoint.step < step) {
      plan.checkpoint = checkpoint.path;
      plan.done = checkpoint.step;
    } else {  // what the run did the step by, even if it went on with other settings later
      config = checkpoint.path / "config.toml";
      break;
    }
  }
  plan.config = load_saved_config(config);
  plan.config.data.heldout.clear();  // nothing is evaluated
  plan.config.data.heldout_sets.clear();
  if (step < 1 || step > plan.config.train.steps)
    throw UsageError(fmt::format("--step {}: the run has steps 1 to {}", step, plan.config.train.steps));
  begin_elsewhere(run, step, plan);
  return plan;
}

ReplayedStep replay(Backend& backend, const ProcessGrid& grid, const ReplayPlan& plan, ShardSet shards,
                    const std::filesystem::path& run, std::int64_t step, std::size_t worst) {
  std::optional<CheckpointReader> checkpoint;
  std::optional<CodeMap> map;
  if (!plan.checkpoint.empty()) {
    checkpoint.emplace(plan.checkpoint, grid.world().rank() == 0 ? Verify::yes : Verify::no);
    check_training_shards(*checkpoint, shards);
    if (!changes_head(plan.config, checkpoint->config())) map = checkpoint->code_map();
  }
  const bool needs_map = !map && plan.initial.empty() && map_sizes(plan.config.head).has_value();
  if (needs_map && std::filesystem::exists(run / "code_map.h5")) {
    map = load_code_map((run / "code_map.h5").string());
  }
  std::unique_ptr<ModelSource> initial;
  if (!plan.initial.empty()) {
    initial = open_model(plan.initial, grid.world().rank() == 0 ? Verify::yes : Verify::no);
    initial = on_named_map(std::move(initial), plan.config, shards, backend, grid.world());
    map = initial->code_map();
  }
  const TrainingInputs inputs = make_training_inputs(backend, grid, plan.config, std::move(shards), std::move(map),
                                                     checkpoint ? std::optional(checkpoint->state()) : std::nullopt);
  std::vector<std::unique_ptr<ModelSource>> changed;
  if (checkpoint && changes_head(plan.config, checkpoint->config()))
    changed = with_changed_head(*checkpoint, plan.config, inputs.map ? &*inputs.map : nullptr);
  Trainer trainer(backend, grid, plan.config, inputs, checkpoint ? &*checkpoint : nullptr,
                  changed.empty() ? initial.get() : changed.back().get(), Trainer::nobodys_peak);
  ReplayedStep replayed;
  replayed.step = trainer.advance_to(step);
  for (const SampleLoss& sample : trainer.worst_samples()) {
    if (replayed.worst.size() == worst) break;
    replayed.worst.push_back({sample, trainer.describe(sample)});
  }
  find_recorded(run / "metrics.jsonl", replayed);
  return replayed;
}

}  // namespace vqlm
