#include "train/engine/plan.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "core/rng.h"
#include "train/engine/engine.h"
#include "train/engine/planned_model.h"
#include "train/engine/planning_backend.h"
#include "train/engine/planning_communicator.h"
#include "train/engine/step_statistics.h"

namespace vqlm {
namespace {

/// The engine of a training, on a machine that only counts.
class PlannedTraining {
 public:
  PlannedTraining(const Config& config, const PlanOptions& options)
      : machine_(options.rates),
        backend_(machine_, options.activation),
        grid_(make_planning_grid(machine_, backend_, config.parallel.data, config.parallel.tensor,
                                 rank_of(config, options))),
        balanced_(options.map == nullptr ? planned_map(config.model, config.head) : std::nullopt),
        sources_(config.data.sources()),
        vocabulary_(config.model.vocab_size),
        first_step_(config.run.head_since + 1),
        engine_(backend_, grid_, config,
                !map_sizes(config.head) ? nullptr
                : balanced_             ? &*balanced_
                                        : options.map) {}

  MemoryPlan memory() const { return {backend_.memory().in_use}; }

  /// Runs a step; the machine's books are its. Sets head_seconds and update.
  void step(StepPlan& plan) {
    machine_.clear();
    set_tokens();
    engine_.micro_batches().enqueue_directly();
    const double flops = machine_.flops(), sent_bytes = machine_.sent_bytes(), seconds = machine_.now();
    constexpr float lr = 1e-3f;
    engine_.update(first_step_, lr);
    plan.update = {.flops = machine_.flops() - flops,
                   .sent_bytes = machine_.sent_bytes() - sent_bytes,
                   .seconds = machine_.now() - seconds};
    plan.head_seconds = engine_.micro_batches().sums().seconds_head;
    StepStatistics statistics;
    if (sources_ > 1) statistics.by_source.resize(sources_);
    statistics.future_nll.resize(static_cast<std::size_t>(model().future_heads()));
    statistics.future_tokens = statistics.future_nll;
    statistics.sum_over_ranks(backend_, grid_.world());
  }

  Transformer& model() { return engine_.model(); }
  const PlannedMachine& machine() const { return machine_; }

 private:
  /// Text without a pattern: what a step touches of a table at the input is the most that it can be.
  void set_tokens() {
    if (engine_.model().row_tables().empty()) return;
    const auto rows = static_cast<std::size_t>(engine_.model().batch().rows());
    const Philox random(1, "tokens of a plan");
    std::uint64_t place = 0;
    for (std::int64_t number = 0; number < engine_.micro_batches().count(); ++number) {
      Batch batch{std::vector<std::int32_t>(rows), std::vector<std::int32_t>(rows)};
      for (std::int32_t& id : batch.tokens)
        id = static_cast<std::int32_t>(random.below(place++, static_cast<std::uint64_t>(vocabulary_)));
      engine_.micro_batches().set(number, batch);
    }
  }

  static int rank_of(const Config& config, const PlanOptions& options) {
    return options.rank >= 0 ? options.rank : config.parallel.data * config.parallel.tensor - 1;
  }

  PlannedMachine machine_;
  PlanningBackend backend_;
  ProcessGrid grid_;
  std::optional<CodeMap> balanced_;
  std::size_t sources_;
  std::int64_t vocabulary_;
  std::int64_t first_step_;  // with the head
  Engine engine_;
};

}  // namespace

std::size_t MemoryPlan::total() const {
  return std::accumulate(bytes.begin(), bytes.end(), std::size_t{0});
}

MemoryPlan plan_memory(const Config& config, const PlanOptions& options) {
  return PlannedTraining(config, options).memory();
}

StepPlan plan_step(const Config& config, const PlanOptions& options) {
  PlannedTraining training(config, options);
  StepPlan plan;
  plan.memory = training.memory();
  plan.parameters = static_cast<double>(training.model().parameters().global_count());
  plan.tokens = static_cast<double>(config.train.global_batch * config.data.seq_len);
  plan.flops_per_token = training.model().flops_per_token();
  plan.micro_batches = micro_batches_of(config);
  training.step(plan);
  const PlannedMachine& machine = training.machine();
  plan.ops = machine.ops();
  std::stable_sort(plan.ops.begin(), plan.ops.end(),
                   [](const OpCount& a, const OpCount& b) { return a.seconds > b.seconds; });
  plan.collectives = machine.collectives();
  plan.product_seconds = machine.product_seconds();
  plan.memory_seconds = machine.memory_seconds();
  plan.collective_seconds = machine.collective_seconds();
  plan.launch_seconds = machine.launch_seconds();
  plan.seconds = machine.now();
  plan.flops = machine.flops();
  const double peak = options.rates.peak_flops > 0 ? options.rates.peak_flops : options.rates.product_flops;
  plan.peak_flops = peak * config.parallel.data * config.parallel.tensor;
  return plan;
}

RecomputationCost recomputation_cost(const Config& config, const PlanOptions& options, const StepPlan& step) {
  if (config.train.recompute == Recompute::none) return {};
  Config keeping = config;
  keeping.train.recompute = Recompute::none;
  const StepPlan without = plan_step(keeping, options);
  return {.flops = step.flops - without.flops,
          .seconds = step.seconds - without.seconds,
          .bytes = static_cast<double>(without.memory.total()) - static_cast<double>(step.memory.total())};
}

}  // namespace vqlm
