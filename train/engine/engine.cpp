#include "train/engine/engine.h"

#include <cmath>

namespace vqlm {
namespace {

Transformer::Options model_options(const Config& config, const ProcessGrid& grid) {
  return {.model = config.model,
          .head = config.head,
          .batch = {config.train.micro_batch, config.data.seq_len},
          .purpose = Purpose::training,
          .recompute = config.train.recompute,
          .share = {.size = grid.data_size(), .rank = grid.data_rank()},
          .step_tokens = config.train.global_batch * config.data.seq_len,
          .row_gradients = {.micro_batches = micro_batches_of(config),
                            .embedding = config.optim.embedding_update == TableUpdate::rows,
                            .input_tables = config.optim.input_tables_update == TableUpdate::rows}};
}

/// Of every token's gradient, so that a step's sum is the gradient of the mean loss.
float gradient_scale(const Config& config) {
  return 1.0f / static_cast<float>(config.train.global_batch * config.data.seq_len);
}

}  // namespace

std::int64_t micro_batches_of(const Config& config) {
  return config.train.global_batch / (config.parallel.data * config.train.micro_batch);
}

Engine::Engine(Backend& backend, const ProcessGrid& grid, const Config& config, const CodeMap* map)
    : backend_(backend),
      grid_(grid),
      config_(config),
      map_(map),
      model_(backend, grid.tensor(), model_options(config, grid), map),
      optimizer_(backend, grid, model_.parameters(), config.optim, config.train.grad_clip,
                 config.parallel.overlap ? Overlap::yes : Overlap::no, config.run.head_since, model_.row_tables(),
                 model_.buckets_in_forward()),
      evaluation_(config.data.evaluates() ? EvaluationBuffers(backend, model_) : EvaluationBuffers{}),
      micro_batches_(backend, model_, optimizer_, micro_batches_of(config), gradient_scale(config),
                     config.run.cuda_graphs && adaptive_of(config.head) == nullptr ? UseGraphs::yes : UseGraphs::no) {}

double Engine::step(std::int64_t step, float lr) {
  micro_batches_.enqueue();
  return update(step, lr);
}

double Engine::update(std::int64_t step, float lr) {
  const double norm = optimizer_.step(step, lr);
  if (std::isfinite(norm)) model_.head().after_update();
  return norm;
}

void Engine::gather_parameters() {
  optimizer_.gathers().complete();
}

Evaluator Engine::evaluator(const ShardSet& heldout) {
  VQLM_ASSERT(evaluation_);
  const CodeMap* const codes = vq_of(config_.head) != nullptr ? map_ : nullptr;  // an adaptive head's bands are none
  return Evaluator(backend_, grid_, model_, heldout, config_.train.eval_tokens, codes, nullptr, evaluation_);
}

}  // namespace vqlm
