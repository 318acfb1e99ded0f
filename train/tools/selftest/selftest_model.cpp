#include "train/tools/selftest/selftest_model.h"

#include "core/host_collectives.h"
#include "train/tools/bench/synthetic_tokens.h"

namespace vqlm {
namespace {

std::optional<CodeMap> map_of(const Config& config) {
  const VqHeadConfig* const head = vq_of(config.head);
  if (head == nullptr) return std::nullopt;
  return make_random_map(config.model.vocab_size, head->clusters, head->groups(), head->codes(), 5);
}

Config one_micro_batch(Config config) {
  config.train.global_batch = config.parallel.data * config.train.micro_batch;
  return config;
}

}  // namespace

Config selftest_config(HeadKind head, int data, int tensor) {
  constexpr std::int64_t head_dim = 32;
  Config config;
  config.model.n_layers = 2;
  config.model.n_heads = 2 * tensor;
  config.model.d_model = head_dim * config.model.n_heads;
  config.model.n_kv_heads = tensor;
  config.model.d_ff = 2 * config.model.d_model;
  if (head == HeadKind::vq) {
    VqHeadConfig vq = code_head(23, 8, 16);
    vq.map = "random";
    vq.learning = CommitmentLearningConfig{};
    config.head = vq;
  } else {
    VQLM_ASSERT(head == HeadKind::dense);
    config.head = DenseHeadConfig{};
  }
  config.data.seq_len = std::int64_t{32} * tensor;
  config.train.micro_batch = 1;
  config.train.global_batch = 2 * data;
  config.optim.warmup_steps = 0;
  config.parallel = {.data = data, .tensor = tensor};
  config.run.log_every = 1'000'000;
  config.data.train = "synthetic";
  resolve(config, 509, data * tensor);
  return config;
}

std::uint64_t fingerprint_of(Backend& backend, const ParameterStore& parameters, const Optimizer& optimizer) {
  const Tensor rounded = parameters.flat_rounded();
  std::uint64_t result = backend.fingerprint(rounded ? rounded : parameters.flat_values());
  for (const Optimizer::OwnedSlice& slice : optimizer.owned_slices()) {
    const Parameter& parameter = parameters.parameters()[static_cast<std::size_t>(slice.parameter)];
    result = 31 * result + backend.fingerprint(parameters.masters(parameter.flat_begin + slice.begin, slice.count));
  }
  return result + 3 * backend.fingerprint(optimizer.first_moment()) +
         5 * backend.fingerprint(optimizer.second_moment());
}

SelftestModel::SelftestModel(Backend& backend, const ProcessGrid& grid, HeadKind head)
    : backend_(backend),
      grid_(grid),
      config_(one_micro_batch(selftest_config(head, grid.data_size(), grid.tensor_size()))),
      map_(map_of(config_)),
      engine_(backend, grid, config_, map_ ? &*map_ : nullptr) {
  engine_.model().initialize(3, synthetic_counts(TokenDistribution::zipf, config_.model.vocab_size));
}

SelftestModel::Step SelftestModel::step(const MicroBatches::BeforeReduction& before_reduction) {
  const std::int64_t rows = engine_.model().batch().rows();
  // The ranks of a tensor group share a batch. Row t's target is token t + 1.
  const auto seed = static_cast<std::uint64_t>(++steps_ * grid_.data_size() + grid_.data_rank());
  const std::vector<std::int32_t> text =
      draw_tokens(synthetic_counts(TokenDistribution::zipf, config_.model.vocab_size), rows + 1, seed, "selftest");
  engine_.micro_batches().set(0, {{text.begin(), text.end() - 1}, {text.begin() + 1, text.end()}});
  engine_.micro_batches().enqueue_directly(before_reduction);
  Step result;
  result.norm = engine_.update(steps_, config_.optim.lr);
  std::vector<double> sum{engine_.micro_batches().sums().nll};
  sum_over(backend_, grid_.world(), sum);
  result.loss = sum[0] / static_cast<double>(rows * grid_.data_size());
  return result;
}

}  // namespace vqlm
