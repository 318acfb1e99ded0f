// A step's micro-batches on the device: their tokens, their forward and backward passes, as graphs where that pays, and
// their losses.
#pragma once

#include <functional>
#include <vector>

#include "core/model/transformer.h"
#include "data/shards/batch_loader.h"
#include "train/engine/optimizer.h"

namespace vqlm {

/// Whether micro-batches are recorded as graphs after the first step and replayed from then on; host back ends have
/// nothing to gain and run them directly.
enum class UseGraphs { no, yes };

/// Of a head for a later token: the sum of its losses, and how many positions have a token to predict.
struct FutureSum {
  double nll = 0;
  double tokens = 0;
};

/// A step's losses on this rank.
struct StepSums {
  double nll = 0;  // of the output head
  double penalty = 0;
  double seconds_head = 0;  // of the last micro-batch, times their number
  std::vector<FutureSum> future = {};
};

class MicroBatches {
 public:
  /// scale: of every token's gradient (1 / tokens of the step). All must outlive the object.
  MicroBatches(Backend& backend, Transformer& model, Optimizer& optimizer, std::int64_t count, float scale,
               UseGraphs graphs);

  std::int64_t count() const { return count_; }
  /// Sets micro-batch `number` of the coming step: N tokens and N targets.
  void set(std::int64_t number, const Batch& batch);
  /// Enqueues the step's gradients, from nothing: the last micro-batch starts the reductions, and what is enqueued later
  /// finds them done.
  void enqueue() { enqueue(use_graphs_); }
  /// The same without graphs. `before_reduction` is called with each bucket whose gradients are complete on this rank and
  /// not yet reduced.
  using BeforeReduction = std::function<void(const ParameterBucket&)>;
  void enqueue_directly(const BeforeReduction& before_reduction = {});
  /// Blocks until the step enqueued last is done.
  StepSums sums();
  /// After sums(): of each of the step's sequences, in their order, the sum of the losses of this rank's tokens of it.
  /// first_row: the rank's first row of a micro-batch.
  std::vector<double> sequence_nll(std::int64_t first_row) const;

 private:
  void enqueue(bool graphs);
  /// Rows of host_ids_ and host_losses_ in a micro-batch.
  std::int64_t id_rows() const { return 2 + future_heads_; }
  void set_future(std::int64_t number, const Batch& batch);
  /// Of tables by rows it is now known which rows have gradients.
  void begin_step();
  /// Work on the micro-batch in tokens_ and targets_.
  void enqueue_micro_batch(MicroBatchPlace place);
  void run_micro_batch(MicroBatchPlace place, bool graphs);

  /// A recorded micro-batch and where it notes the head's time.
  struct Recorded {
    Graph graph;
    Transformer::HeadMarks head_marks;
  };

  Backend& backend_;
  Transformer& model_;
  Optimizer& optimizer_;
  std::int64_t count_;
  float scale_;
  bool use_graphs_;
  bool ops_have_run_ = false;
  BeforeReduction before_reduction_;
  Recorded recorded_[2][2];  // by `first` and `last` of their place
  Transformer::HeadMarks head_marks_;

  std::int64_t future_heads_;                // F
  std::vector<std::int32_t> host_ids_;       // (count, 2 + F, N)
  std::vector<float> host_losses_;           // (count, 2 + F, n)
  std::vector<std::int64_t> future_tokens_;  // (count, F): this rank's rows with a target
  Buffer storage_;
  Tensor ids_, losses_;                  // the same on the device
  Tensor batch_ids_, tokens_, targets_;  // (2 + F, N) of the micro-batch at work, and its rows; the second (1 + F, N)
  Tensor batch_losses_, nll_, penalty_;  // (2 + F, n) and its rows; the second (1 + F, n)
};

}  // namespace vqlm
