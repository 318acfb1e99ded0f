// The training loop: micro-batches, reduction, update, metrics, held-out evaluation, checkpoints.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "data/shards/batch_loader.h"
#include "dist/process_grid.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/checkpoint_saver.h"
#include "train/checkpoint/model_source.h"
#include "train/config/config.h"
#include "train/engine/engine.h"
#include "train/engine/products_in_use.h"
#include "train/engine/replica_check.h"
#include "train/records/metrics.h"
#include "train/records/run_folder.h"
#include "train/run/step_losses.h"
#include "train/run/time_limit.h"
#include "train/run/training_inputs.h"

namespace vqlm {

enum class TrainOutcome { finished, stopped, out_of_time };

class Trainer {
 public:
  /// A matmul_peak for those whose utilisation nobody reads.
  static constexpr double nobodys_peak = 1e15;

  /// Collective. `resumed`: the checkpoint to continue from, or null. `initial`: the model whose parameters a run that is not
  /// resumed starts from (check_initial_model), null for random ones; of a resumed one: its model with the head that the run
  /// goes on with, null where that is the checkpoint's. `matmul_peak`: TrainingRunOptions has it. config must be resolved; the back end, the grid, the
  /// configuration and the inputs must outlive the trainer.
  Trainer(Backend& backend, const ProcessGrid& grid, const Config& config, const TrainingInputs& inputs,
          const CheckpointReader* resumed, const ModelSource* initial = nullptr, double matmul_peak = 0);

  /// On one rank alone, before run(). Removes of the run's own checkpoints what killed saves have left, and more than
  /// checkpoint.keep, which may have been lowered because the disk is full.
  void make_room();

  /// Trains to config.train.steps. `stop_requested` is asked between steps on every rank; where any rank says yes, the run is
  /// saved and left, and also when the first rank's time `limit` would not leave room for another step and a save.
  /// `metrics` is null on all ranks but one. Checkpoints are written while training goes on; one that fails is reported and
  /// the run goes on, but for the last one: then throws Error that says which checkpoint is the newest.
  TrainOutcome run(Metrics* metrics, const std::function<bool()>& stop_requested, const TimeLimit& limit = {});

  /// Does the steps up to `step` and nothing beside them: no record, no evaluation, no checkpoint. Returns the last one's
  /// metrics, which are those of run() to the bit on the same grid. Collective.
  StepMetrics advance_to(std::int64_t step);
  /// The newest step's samples by their losses, the worst first, on the first rank; empty on the others. Collective.
  std::vector<SampleLoss> worst_samples() { return losses_->worst(step_); }
  /// Where one of them comes from, in a line.
  std::string describe(const SampleLoss& sample) { return losses_->describe(sample); }

  Transformer& model() { return engine_.model(); }
  const Optimizer& optimizer() const { return engine_.optimizer(); }
  const TrainState& state() const { return state_; }
  /// The VQ head's map; null for a dense head.
  const CodeMap* map() const { return inputs_.map ? &*inputs_.map : nullptr; }
  /// The samples that this rank took for the newest step, in their order: their numbers in their sources (BatchLoader).
  const std::vector<std::int64_t>& step_samples() const { return step_samples_; }
  const std::vector<std::int32_t>& step_sources() const { return step_.sources; }

 private:
  /// What ranks ask for between steps; the same on all of them.
  struct Wishes {
    bool stop = false;
    bool time_is_up = false;
  };
  StepMetrics train_step(const std::function<bool()>& stop_requested, const TimeLimit& limit, Wishes& wishes);
  /// Whether the time left is too short for the next step, the evaluation after it where one is due, and a save.
  bool time_is_up(const TimeLimit& limit) const;
  bool is_due(std::int64_t every, std::int64_t step) const { return every > 0 && step % every == 0; }
  /// Where it is due in this step: whether the values that its micro-batches have read are the same on all ranks. Returns the
  /// seconds that it took. Throws Error.
  double check_replicas(std::int64_t step);
  /// The part of the best matrix-product rate seen so far that this is, at most 1: a step that beats the rate is the new best,
  /// and asks for another measurement.
  double share_of_peak(double flops_per_second);
  /// Collective, after a step on any rank asked for it.
  void measure_peak_again();
  /// Takes the step's micro-batches from the loader; returns the seconds waited for them.
  double load_micro_batches();
  /// Counts updates that were skipped (all ranks the same ones, as the norm is the same there); throws Error, after saving,
  /// when there were too many in a row.
  void note_skipped_update(const StepMetrics& step, Metrics* metrics);
  void report_start();
  void evaluate(Metrics* metrics);
  /// The evaluation that was due after the step from which the run goes on, where it was left before that. Collective.
  void make_up_evaluation(Metrics* metrics);
  bool evaluation_is_due() const;
  /// Starts a checkpoint of the state where there is none yet.
  void save();
  /// The same, and waits until it is on disk. Throws Error where it could not be written.
  void save_and_wait(Metrics* metrics);
  /// Says and notes what has become of saves in the background.
  void report_saved(Metrics* metrics);
  /// Throws Error where as many saves in a row have failed as the run puts up with.
  void check_saves();
  void note_slow_step(const StepMetrics& step);

  Backend& backend_;
  const ProcessGrid& grid_;
  const Config& config_;
  const TrainingInputs& inputs_;
  double matmul_peak_;        // FLOP/s of all ranks, the best seen; measured first before the model takes that memory
  bool peak_is_low_ = false;  // the last step was faster
  Engine engine_;
  ReplicaCheck replica_check_;
  std::unique_ptr<BatchLoader> loader_;
  std::optional<StepLosses> losses_;
  struct NamedEvaluator {
    std::string name;
    Evaluator evaluator;
  };
  std::vector<NamedEvaluator> evaluators_;
  RunFolder folder_;
  TrainState state_;
  std::vector<std::int64_t> step_samples_;
  StepSamples step_;                         // the newest
  std::int64_t saved_step_ = -1;             // of the newest save begun
  std::filesystem::path newest_checkpoint_;  // complete; empty where there is none
  double longest_step_seconds_ = 0;          // of late
  double evaluation_seconds_ = 0;            // of the last one
  std::optional<ProductsInUse> products_;
  std::deque<double> recent_seconds_;                // of steps
  std::int64_t skipped_ = 0, skipped_in_a_row_ = 0;  // updates, for a gradient that was not finite
  CheckpointSaver saver_;  // last: while it goes, its thread may still read what the others hold
};

}  // namespace vqlm
