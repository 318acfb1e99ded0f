#include "train/tools/plan/plan.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "train/engine/engine.h"
#include "train/engine/step_statistics.h"
#include "train/tools/plan/planning_backend.h"
#include "train/tools/plan/planning_communicator.h"

namespace vqlm {
namespace {

/// Clusters whose sizes are equal to within one; the members' codes do not matter.
CodeMap balanced_map(const Config& config) {
  const HeadConfig& head = config.head;
  CodeMap map;
  map.vocab_size = config.model.vocab_size;
  map.clusters = head.clusters;
  map.groups = head.groups;
  map.codes = head.groups > 0 ? head.codes : 0;
  map.cluster_of_token.resize(static_cast<std::size_t>(map.vocab_size));
  for (std::size_t token = 0; token < map.cluster_of_token.size(); ++token) {
    map.cluster_of_token[token] = static_cast<std::int32_t>(static_cast<std::int64_t>(token) % map.clusters);
  }
  map.member_codes.resize(map.cluster_of_token.size() * static_cast<std::size_t>(map.groups));
  return map;
}

/// The engine of a training, on a machine that only counts.
class PlannedTraining {
 public:
  PlannedTraining(const Config& config, const PlanOptions& options)
      : machine_(options.rates),
        backend_(machine_, options.activation),
        grid_(make_planning_grid(machine_, backend_, config.parallel.data, config.parallel.tensor,
                                 rank_of(config, options))),
        balanced_(needs_map(config) && options.map == nullptr ? std::optional(balanced_map(config))
                                                              : std::nullopt),
        engine_(backend_, grid_, config, needs_map(config) ? (balanced_ ? &*balanced_ : options.map) : nullptr) {}

  MemoryPlan memory() const { return {backend_.memory().in_use}; }

  /// Returns the compute seconds of the head.
  double step() {
    machine_.clear();
    engine_.micro_batches().enqueue_directly();
    constexpr float lr = 1e-3f;
    engine_.update(1, lr);
    const double head = engine_.micro_batches().sums().seconds_head;
    StepStatistics statistics;
    statistics.sum_over_ranks(backend_, grid_.world());
    return head;
  }

  Transformer& model() { return engine_.model(); }
  const PlannedMachine& machine() const { return machine_; }

 private:
  static bool needs_map(const Config& config) { return config.head.kind == HeadKind::vq; }
  static int rank_of(const Config& config, const PlanOptions& options) {
    return options.rank >= 0 ? options.rank : config.parallel.data * config.parallel.tensor - 1;
  }

  PlannedMachine machine_;
  PlanningBackend backend_;
  ProcessGrid grid_;
  std::optional<CodeMap> balanced_;
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
  plan.head_seconds = training.step();
  const PlannedMachine& machine = training.machine();
  plan.ops = machine.ops();
  std::stable_sort(plan.ops.begin(), plan.ops.end(),
                   [](const OpCount& a, const OpCount& b) { return a.seconds > b.seconds; });
  plan.collectives = machine.collectives();
  plan.product_seconds = machine.product_seconds();
  plan.memory_seconds = machine.memory_seconds();
  plan.collective_seconds = machine.collective_seconds();
  plan.seconds = machine.now();
  plan.peak_flops = options.rates.product_flops * config.parallel.data * config.parallel.tensor;
  return plan;
}

}  // namespace vqlm
