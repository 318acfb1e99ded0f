// The engine: a model and its training step, from micro-batches in host memory to updated parameters, on any back end and
// grid. What a training, a plan, a benchmark, a self-test and the tests do with it differs in the back end, in where batches
// come from and in what is recorded.
#pragma once

#include <cstdint>

#include "core/model/transformer.h"
#include "dist/process_grid.h"
#include "train/config/config.h"
#include "train/engine/evaluator.h"
#include "train/engine/micro_batches.h"
#include "train/engine/optimizer.h"

namespace vqlm {

/// Micro-batches of a step on each rank of config's grid. config must be resolved.
std::int64_t micro_batches_of(const Config& config);

class Engine {
 public:
  /// Allocates all that training needs, held-out evaluation included where the configuration evaluates; parameters are
  /// zeros. config must be resolved; map: a VQ or an adaptive head's, null for others. All must outlive the engine, but for the map
  /// where nothing is evaluated. Collective over the tensor groups. Throws Error where there is too little memory.
  Engine(Backend& backend, const ProcessGrid& grid, const Config& config, const CodeMap* map);

  Backend& backend() { return backend_; }
  Transformer& model() { return model_; }
  ParameterStore& parameters() { return model_.parameters(); }
  Optimizer& optimizer() { return optimizer_; }
  const Optimizer& optimizer() const { return optimizer_; }
  MicroBatches& micro_batches() { return micro_batches_; }

  /// Enqueues the gradients of the micro-batches that were set, and their reductions (micro_batches().enqueue()), updates
  /// the parameters and what the head makes of them. `step` counts from 1. Collective. Returns the global gradient norm
  /// before clipping; where it is not finite, nothing was updated.
  double step(std::int64_t step, float lr);
  /// The second half of step(), behind gradients that micro_batches() has enqueued.
  double update(std::int64_t step, float lr);
  /// After step() a data rank has the new values that it owns, and the next step brings it the others beside its forward pass.
  /// Whoever else reads parameters, the evaluators too, calls this first: it brings them now. Collective; nothing where they
  /// are there.
  void gather_parameters();

  /// Evaluates on these shards, whose tokens are the model's, up to config.train.eval_tokens, where the
  /// configuration evaluates. Evaluators share their buffers: one runs at a time, after gather_parameters().
  Evaluator evaluator(const ShardSet& heldout);

 private:
  Backend& backend_;
  const ProcessGrid& grid_;
  const Config& config_;
  const CodeMap* map_;
  Transformer model_;
  Optimizer optimizer_;
  EvaluationBuffers evaluation_;
  MicroBatches micro_batches_;
};

}  // namespace vqlm
