// The output head: from the last hidden states to the exact cross entropy over the whole vocabulary. Dense
// and codebook heads stand behind the same interface, on equal terms.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"
#include "core/model/head/token_choice.h"
#include "core/micro_batch_place.h"
#include "core/model_config.h"
#include "core/parameters.h"
#include "core/tensor_parallel.h"

namespace vqlm {

/// What a head costs, whatever the grid.
struct HeadCost {
  /// V d for dense (tied: shared with the embedding), r (V + d) for low rank, (K + Q) d for the VQ head; adaptive:
  /// adaptive_head.h.
  std::int64_t matrix_parameters = 0;
  std::int64_t bias_parameters = 0;  // V for dense and low rank, K + V for the VQ head
  std::int64_t code_bytes = 0;       // the VQ head's integer map and sub-codes, an adaptive head's bands
  double multiply_adds = 0;          // per token, forward; backward costs twice that
};

/// n rows of this rank; the micro-batch's N = P n over the tensor group. targets (n) i32 over the whole
/// vocabulary, -1 for rows that have none: they add nothing to the loss and get no gradient.
class OutputHead {
 public:
  virtual ~OutputHead() = default;

  /// (n, d) A: what a head adds to the input embeddings of tokens (n) i32, valid until the next call; absent where it adds
  /// nothing, as all do but a VQ head with input codes.
  virtual Tensor input_branch(Tensor /*tokens*/) { return {}; }
  /// The gradient of the parameters behind the last input_branch() accumulates, from that of its result, dx (n, d) A.
  virtual void input_backward(Tensor /*dx*/) {}

  virtual HeadCost cost() const = 0;
  /// Starts what does not come from the parameters' initializers: biases from the unigram counts (V) of the
  /// training set.
  virtual void initialize(const std::vector<std::int64_t>& counts) = 0;
  /// Starts what the head averages over steps (UpdateRule::moving_average) from its parameters and the unigram counts (V).
  /// initialize() does it, too: this is for parameters that came from a model without averages.
  virtual void start_averages(const std::vector<std::int64_t>& /*counts*/) {}
  /// Makes the parameters that follow from moving averages (UpdateRule::derived), after an optimizer step that was not
  /// skipped. The same on every rank, without a collective.
  virtual void after_update() {}
  /// nll (n) overwritten: -log p(target | h) for h (n, d).
  virtual void forward(Tensor nll, Tensor h, Tensor targets) = 0;
  /// (n) f32: the part of the last forward()'s nll that choosing the target's cluster cost, -log p(cluster | h); the rest
  /// is the choice inside it. Absent for heads without clusters.
  virtual Tensor cluster_nll() const { return {}; }
  /// The same, and the gradient of scale * sum(nll + penalty): dh (n, d) overwritten, parameter gradients
  /// accumulate. penalty (n) overwritten: the head's auxiliary loss (commitment), zeros where it has none.
  void forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale,
                        MicroBatchPlace place = {}) {
    begin_backward(place);
    rows_forward_backward(nll, penalty, dh, h, targets, scale);
    end_backward(place);
  }
  /// The same of several sets of n rows that the head predicts in one micro-batch (future_heads.h): what does not depend on
  /// rows is made before the first set, and its gradients are taken behind the last one of the step's last micro-batch.
  /// Parameters' gradients are complete behind that.
  virtual void begin_backward(MicroBatchPlace /*place*/) {}
  virtual void rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) = 0;
  virtual void end_backward(MicroBatchPlace /*place*/) {}
  /// out (n, V) overwritten: log p(v | h) of every token. Throws Error where the vocabulary is split over
  /// several ranks.
  virtual void log_probs(Tensor out, Tensor h) = 0;

  /// The most probable tokens after the hidden state h (1, d), in falling order of probability (the lower id first among
  /// equals): as many as it takes to have `count` of them, or a total probability of at least `mass`; at least one.
  /// Exact: the same tokens as log_probs() gives, with log-probabilities equal to rounding. Blocks. One tensor rank only.
  virtual std::vector<TokenLogProb> most_probable(Tensor h, std::int64_t count, double mass) = 0;
  /// A token drawn exactly from p(v | h)^(1 / temperature), normalised; temperature above 0. Takes as many numbers in
  /// [0, 1) from `uniform` as it needs. Blocks. One tensor rank only.
  virtual std::int32_t sample(Tensor h, float temperature, const std::function<double()>& uniform) = 0;
};

/// How a head with all V logits holds them in training.
enum class LogitChunks {
  by_budget,   // a chunk of rows at a time
  one_for_all  // (N, V): only for benchmarks, which show what the chunks save
};

/// The store's buckets that a head adds its parameters to: sharded heads to buckets of their own, replicated ones to that
/// of all replicated parameters. Of the first two, since a bucket with vectors is gathered in f32, one of matrices alone in A.
struct HeadBuckets {
  int matrices;
  int biases;
  int replicated;  // what a sharded head has whole on every rank: a low-rank head's projection
};

/// What a head is built from.
struct HeadContext {
  const TensorParallel& tensor;
  const ModelConfig& model;
  ParameterStore& parameters;
  HeadBuckets buckets;
  std::int64_t rows;  // n
  bool trainable;
  std::int64_t input_rows = 0;   // the most rows that input_branch() gets; read by a VQ head with input codes
  std::int64_t step_tokens = 1;  // of an optimizer step, over all ranks: moving averages start with their counts
  LogitChunks logits = LogitChunks::by_budget;
  ParameterId embedding = 0;       // the model's embedding table; read by a VQ head whose members are its rows
  float embedding_stddev = 0.02f;  // of the table's first values; read by a VQ head with input codes
};

}  // namespace vqlm
