#include "train/tools/plan/plan.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "core/model/transformer.h"
#include "train/engine/gradient_accumulator.h"
#include "core/host_collectives.h"
#include "train/engine/optimizer.h"
#include "train/tools/plan/planning_backend.h"
#include "train/tools/plan/planning_communicator.h"
#include "train/run/trainer.h"

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

/// What Trainer builds on the device, on a machine that only counts.
class PlannedTraining {
 public:
  PlannedTraining(const Config& config, const PlanOptions& options)
      : machine_(options.rates),
        backend_(machine_, options.activation),
        grid_(make_planning_grid(machine_, backend_, config.parallel.data, config.parallel.tensor,
                                 rank_of(config, options))),
        balanced_(needs_map(config) && options.map == nullptr ? std::optional(balanced_map(config))
                                                              : std::nullopt),
        model_(backend_, grid_.tensor(),
               {.model = config.model,
                .head = config.head,
                .batch = {config.train.micro_batch, config.data.seq_len},
                .purpose = Purpose::training,
                .data_size = config.parallel.data},
               needs_map(config) ? (balanced_ ? &*balanced_ : options.map) : nullptr),
        optimizer_(backend_, grid_, model_.parameters(), config.optim, config.train.grad_clip, Overlap::yes),
        accumulator_(backend_, model_, optimizer_, micro_batches(config), scale(config), UseGraphs::no) {
    if (config.data.heldout.empty()) return;
    const auto rows = static_cast<std::size_t>(model_.batch().rows());
    const auto local_rows = static_cast<std::size_t>(model_.local_rows());
    evaluator_ids_ = backend_.allocate(2 * rows * sizeof(std::int32_t), MemoryUse::workspace);
    evaluator_nll_ = backend_.allocate(local_rows * sizeof(float), MemoryUse::workspace);
  }

  MemoryPlan memory() const { return {backend_.memory().in_use}; }

  /// Returns the compute seconds of the head.
  double step() {
    machine_.clear();
    accumulator_.enqueue();
    constexpr float lr = 1e-3f;
    optimizer_.step(1, lr);
    model_.head().after_update();
    const double head = accumulator_.sums().seconds_head;
    std::vector<double> statistics(step_statistics, 0.0);
    sum_over(backend_, grid_.world(), statistics);
    return head;
  }

  Transformer& model() { return model_; }
  const PlannedMachine& machine() const { return machine_; }
  static std::int64_t micro_batches(const Config& config) {
    return config.train.global_batch / (config.parallel.data * config.train.micro_batch);
  }

 private:
  static bool needs_map(const Config& config) { return config.head.kind == HeadKind::vq; }
  static int rank_of(const Config& config, const PlanOptions& options) {
    return options.rank >= 0 ? options.rank : config.parallel.data * config.parallel.tensor - 1;
  }
  static float scale(const Config& config) {
    return 1.0f / static_cast<float>(config.train.global_batch * config.data.seq_len);
  }

  PlannedMachine machine_;
  PlanningBackend backend_;
  ProcessGrid grid_;
  std::optional<CodeMap> balanced_;
  Transformer model_;
  Optimizer optimizer_;
  GradientAccumulator accumulator_;
  Buffer evaluator_ids_, evaluator_nll_;
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
  plan.micro_batches = PlannedTraining::micro_batches(config);
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
