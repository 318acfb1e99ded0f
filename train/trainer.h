// The training loop: micro-batches, reduction, update, metrics, held-out evaluation, checkpoints.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "core/model/transformer.h"
#include "data/batch_loader.h"
#include "dist/process_grid.h"
#include "train/checkpoint_reader.h"
#include "train/config.h"
#include "train/evaluator.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/run_folder.h"
#include "train/training_inputs.h"

namespace vqlm {

enum class TrainOutcome { finished, stopped };

class Trainer {
 public:
  /// Collective. `resumed`: the checkpoint to continue from, or null. config must be resolved; the back end, the grid, the
  /// configuration and the inputs must outlive the trainer.
  Trainer(Backend& backend, const ProcessGrid& grid, const Config& config, const TrainingInputs& inputs,
          const CheckpointReader* resumed);

  /// Trains to config.train.steps. `stop_requested` is asked between steps on every rank; where any rank says yes, the run is
  /// saved and left. `metrics` is null on all ranks but one.
  TrainOutcome run(Metrics* metrics, const std::function<bool()>& stop_requested);

  Transformer& model() { return model_; }
  const TrainState& state() const { return state_; }

 private:
  /// Sums of one step on this rank.
  struct StepSums {
    double nll = 0;
    double penalty = 0;
    double seconds_data = 0;
    double seconds_head = 0;
  };
  StepMetrics train_step(const std::function<bool()>& stop_requested, bool& stop);
  StepSums accumulate_gradients();
  void report_start();
  void evaluate(Metrics* metrics);
  void save();

  Backend& backend_;
  const ProcessGrid& grid_;
  const Config& config_;
  const TrainingInputs& inputs_;
  Transformer model_;
  Optimizer optimizer_;
  std::unique_ptr<BatchLoader> loader_;
  std::optional<Evaluator> evaluator_;
  RunFolder folder_;
  TrainState state_;
  std::int64_t saved_step_ = -1;
  double matmul_peak_;  // FLOP/s of all ranks together
  Buffer id_storage_, loss_storage_;
  std::vector<float> losses_;  // (2, n): nll and penalty of a micro-batch
};

}  // namespace vqlm
