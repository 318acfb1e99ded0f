// The engine of a training and tokens for its steps, without shards.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/engine/engine.h"

namespace vqlm {

class SyntheticTraining {
 public:
  /// A model of `config` (resolved; head.map "random" or else by frequency) with random weights, and tokens of a Zipf distribution.
  /// All must outlive the object. Collective over the grid.
  SyntheticTraining(Backend& backend, const ProcessGrid& grid, const Config& config);

  /// Draws a step's tokens, others for each `draw`. Every rank of a tensor group draws the same. Data groups and micro-batches have
  /// their own, by which tables at the input are asked for other rows.
  void draw_tokens(std::int64_t draw);
  /// Enqueues a step; the device need not be done with it.
  void step();
  /// The same without graphs, so that the back end sees the ops.
  void step_by_ops();
  /// Of this rank in the last step(); waits for it.
  StepSums sums() { return engine_.micro_batches().sums(); }

  Transformer& model() { return engine_.model(); }

 private:
  std::uint64_t seed() const { return static_cast<std::uint64_t>(config_.train.seed); }
  std::optional<CodeMap> make_map() const;

  const ProcessGrid& grid_;
  const Config& config_;
  std::vector<std::int64_t> counts_;
  std::optional<CodeMap> map_;
  Engine engine_;
  std::int64_t steps_ = 0;
};

}  // namespace vqlm
