#include "train/tools/selftest/selftest_model.h"

#include <numeric>

#include "train/tools/bench/synthetic_tokens.h"
#include "core/host_collectives.h"

namespace vqlm {
namespace {

std::optional<CodeMap> map_of(const Config& config) {
  if (config.head.kind == HeadKind::dense) return std::nullopt;
  return make_random_map(config.model.vocab_size, config.head.clusters, config.head.groups, config.head.codes,
                         5);
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
  config.head.kind = head;
  config.head.map = "random";
  config.head.clusters = 23;
  config.head.groups = 8;
  config.head.codes = 16;
  config.head.learning = CodebookLearning::commitment;
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
  const Tensor rounded = parameters.flat_rounded(), values = parameters.flat_values();
  std::uint64_t result = backend.fingerprint(rounded ? rounded : values);
  // Where ops read a rounded copy, an f32 matrix is current on its owner only.
  for (const Optimizer::OwnedSlice& slice : optimizer.owned_slices()) {
    const Parameter& parameter = parameters.parameters()[static_cast<std::size_t>(slice.parameter)];
    result = 31 * result + backend.fingerprint(values.range(parameter.flat_begin + slice.begin, slice.count));
  }
  return result + 3 * backend.fingerprint(optimizer.first_moment()) +
         5 * backend.fingerprint(optimizer.second_moment());
}

SelftestModel::SelftestModel(Backend& backend, const ProcessGrid& grid, HeadKind head)
    : backend_(backend),
      grid_(grid),
      config_(selftest_config(head, grid.data_size(), grid.tensor_size())),
      map_(map_of(config_)),
      model_(backend, grid.tensor(),
             {.model = config_.model,
              .head = config_.head,
              .batch = {config_.train.micro_batch, config_.data.seq_len},
              .data_size = grid.data_size()},
             map_ ? &*map_ : nullptr),
      optimizer_(backend, grid, model_.parameters(), config_.optim, config_.train.grad_clip),
      ids_(backend.allocate(static_cast<std::size_t>(2 * model_.batch().rows()) * sizeof(std::int32_t),
                            MemoryUse::workspace)),
      losses_(backend.allocate(static_cast<std::size_t>(2 * model_.local_rows()) * sizeof(float),
                               MemoryUse::workspace)) {
  model_.initialize(3, synthetic_counts(TokenDistribution::zipf, config_.model.vocab_size));
}

SelftestModel::Step SelftestModel::step(const BeforeReduction& before_reduction) {
  const std::int64_t rows = model_.batch().rows(), local = model_.local_rows();
  // The ranks of a tensor group share a batch. Row t's target is token t + 1.
  const auto seed = static_cast<std::uint64_t>(++steps_ * grid_.data_size() + grid_.data_rank());
  std::vector<std::int32_t> ids = draw_tokens(
      synthetic_counts(TokenDistribution::zipf, config_.model.vocab_size), rows + 1, seed, "selftest");
  const std::vector<std::int32_t> targets(ids.begin() + 1, ids.end());
  const Tensor device_ids = ids_.view({2, rows}, DType::i32), losses = losses_.view({2, local});
  backend_.copy_from_host(device_ids.rows(0, 1), ids.data());
  backend_.copy_from_host(device_ids.rows(1, 1), targets.data());
  optimizer_.zero_gradients();
  const auto tokens = static_cast<double>(rows * grid_.data_size());
  model_.accumulate_gradients(losses.rows(0, 1).view({local}), losses.rows(1, 1).view({local}),
                              device_ids.rows(0, 1).view({rows}), device_ids.rows(1, 1).view({rows}),
                              static_cast<float>(1 / tokens), [&](int bucket) {
                                if (before_reduction)
                                  before_reduction(parameters().buckets()[static_cast<std::size_t>(bucket)]);
                                optimizer_.bucket_ready(bucket);
                              });
  optimizer_.finish_reductions();
  Step result;
  result.norm = optimizer_.step(steps_, config_.optim.lr);
  model_.head().after_update();
  std::vector<float> nll(static_cast<std::size_t>(2 * local));
  backend_.copy_to_host(nll.data(), losses);
  std::vector<double> sum{std::accumulate(nll.begin(), nll.begin() + local, 0.0)};
  sum_over(backend_, grid_.world(), sum);
  result.loss = sum[0] / tokens;
  return result;
}

}  // namespace vqlm
