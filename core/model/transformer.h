// The whole model of one rank: embedding, blocks, final norm and output head, with the memory of one
// micro-batch.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/communicator.h"
#include "core/model/batch_shape.h"
#include "core/model/block.h"
#include "core/model/embedding.h"
#include "core/model/head/future_heads.h"
#include "core/model/head/output_head.h"
#include "core/model/kv_cache.h"
#include "core/model/ngram_tables.h"

namespace vqlm {

/// A model for training or evaluation takes whole sequences, one for generation takes them piece by piece: advance() alone.
enum class Purpose { training, evaluation, generation };

class Transformer {
 public:
  /// Tables whose gradients are of the rows that a step touches (StepRows), and its micro-batches.
  struct RowGradients {
    std::int64_t micro_batches = 0;
    bool embedding = false;  // which neither a tied head nor members read
    bool input_tables = false;
  };
  struct Options {
    ModelConfig model;
    HeadConfig head;
    BatchShape batch;  // for generation: B sequences, and the most tokens of each in one advance()
    Purpose purpose = Purpose::training;
    Recompute recompute = Recompute::none;  // training only
    DataShare share = {};                   // of the optimizer's work
    std::int64_t step_tokens = 1;           // training: of an optimizer step, over all ranks
    RowGradients row_gradients = {};        // training only
    std::int64_t context = 0;               // generation only: the most tokens of a sequence, which memory is kept for
  };

  /// `map`: needed by a VQ or an adaptive head, else null. Throws Error for generation on several tensor ranks. The back end and the group must outlive the model. Shapes must
  /// already be checked against the group's size (train/config does, with messages for the user).
  Transformer(Backend& backend, Communicator& tensor_group, const Options& options, const CodeMap* map);

  Transformer(const Transformer&) = delete;  // layers hold references into it
  Transformer& operator=(const Transformer&) = delete;

  ParameterStore& parameters() { return parameters_; }
  OutputHead& head() { return *head_; }
  /// Of later tokens; null where the model has none.
  FutureHeads* future() { return future_ ? &*future_ : nullptr; }
  std::int64_t future_heads() const { return future_ ? future_->count() : 0; }  // F
  /// Of the output head and of those.
  HeadCost head_cost() const { return future_ ? future_->with_cost(head_->cost()) : head_->cost(); }
  NgramTables& ngrams() { return *ngrams_; }
  /// The tables with gradients by rows; then the tokens (M, B, T) of the coming step's micro-batches, and which of these comes
  /// next. Where there are none, nothing.
  std::vector<RowTable> row_tables();
  void begin_step(std::span<const std::int32_t> tokens);
  void begin_micro_batch(std::int64_t number);
  /// The head's own parameters are those from this id on.
  ParameterId head_begin() const { return final_gain_ + 1; }
  const BatchShape& batch() const { return batch_; }
  const ModelConfig& config() const { return config_; }
  std::int64_t local_rows() const { return rows_; }                  // n = B T / P
  std::int64_t first_row() const { return tensor_.rank() * rows_; }  // of the N

  /// Draws all parameters from `seed`, and the head's biases from the unigram counts (V).
  void initialize(std::uint64_t seed, const std::vector<std::int64_t>& counts);

  /// nll (n) overwritten with -log p of this rank's rows' targets; tokens and targets (N) i32, the same on
  /// every rank of the tensor group; target -1 = none. With nll (1 + F, n) and targets (1 + F, N) also of the heads for later
  /// tokens, which stand behind the output head's.
  void evaluate(Tensor nll, Tensor tokens, Tensor targets);

  /// Called with a bucket's index as soon as its gradients are complete.
  using BucketReady = std::function<void(int bucket)>;
  /// Called with the buckets whose values the next ops read for the first time.
  using BucketsNeeded = std::function<void(std::span<const int> buckets)>;
  /// The buckets in the order in which forward calls so, each one once; backward needs no others. Those of tables by rows are
  /// not among them.
  std::vector<int> buckets_in_forward() const;
  /// Forward and backward of scale * sum(nll + penalty): nll and penalty (n) overwritten, gradients
  /// accumulate, from ParameterStore::begin_gradients() on; they are complete behind the step's last micro-batch. With heads
  /// for later tokens nll (1 + F, n) and targets (1 + F, N), whose losses count with their weight. needed: absent where all
  /// values are there.
  void accumulate_gradients(Tensor nll, Tensor penalty, Tensor tokens, Tensor targets, float scale,
                            const BucketReady& ready, MicroBatchPlace place = {}, const BucketsNeeded& needed = {});

  /// Evaluation of other sequences in the same N rows: evaluate() and log_probs() take tokens of this shape from now on.
  void reshape(const BatchShape& batch);

  /// out (N, V) overwritten: log-probabilities after every position of tokens (N). One tensor rank only.
  void log_probs(Tensor out, Tensor tokens);
  /// h (n, d) A: what the head saw in the last of these calls, until the next one.
  Tensor hidden() const { return hidden_; }

  /// Generation: the next tokens (B, T) i32 of B sequences that `past` tokens of each came before (in earlier calls; what came
  /// after them is forgotten). Returns the hidden states (B, d) A of the last ones, for head(), until the next call.
  Tensor advance(Tensor tokens, std::int64_t past);
  std::int64_t context() const { return cache_ ? cache_->capacity() : 0; }

  /// Seconds that the head took in the last evaluate() or accumulate_gradients(), by time marks on the back end's stream;
  /// blocks until they are known. A graph that recorded such a call sets the marks it was recorded with.
  struct HeadMarks {
    Event begin, end;
  };
  const HeadMarks& head_marks() const { return head_marks_; }
  double head_seconds(const HeadMarks& marks) const { return backend_.seconds_between(marks.begin, marks.end); }
  /// Floating-point operations of forward and backward for one token: 6 per weight of every product (the
  /// embedding look-up is none, its projection is one; 4 where the weight has no gradient), and 6 T heads head_dim for causal attention,
  /// where only half of the scores exist, or less where a layer has a window.
  double flops_per_token() const;

 private:
  /// Leaves the normalised last hidden states in hidden_.
  void forward(Tensor tokens, const BucketsNeeded& needed = {});
  /// What the tokens (B T) alone say, those at positions from `past` on: where documents begin and end, with
  /// model.document_end, and the rows of the tables at the input.
  void read_tokens(Tensor tokens, std::int64_t past);
  void backward(Tensor tokens, const BucketReady& ready);
  const Block::Activations& saved(std::size_t layer) const {
    return activations_[activations_.size() == 1 ? 0 : layer];
  }
  Buffer rotation_of(const std::vector<double>& frequencies);
  void open_buckets(const Options& options);
  void allocate_activations(Purpose purpose);
  /// Which of a layer's activations backward finds overwritten: none of the last layer's, which are used at once.
  Recompute lost(std::size_t layer) const { return layer + 1 == blocks_.size() ? Recompute::none : recompute_; }
  /// This rank's (n) of ids (N).
  Tensor my_rows(Tensor ids) const { return ids.rows(tensor_.rank() * rows_, rows_); }
  /// This rank's (F, n) of the targets (1 + F, N) behind the first row.
  Tensor my_future_targets(Tensor targets);

  Backend& backend_;
  ModelConfig config_;
  BatchShape batch_;
  Recompute recompute_;
  TensorParallel tensor_;
  ParameterStore parameters_;
  std::int64_t rows_;
  Scratch scratch_;
  Buffer rope_frequencies_;         // (head_dim / 2) f64
  Buffer window_rope_frequencies_;  // the same for layers with a window, where they have their own
  std::optional<NgramTables> ngrams_;
  std::optional<Embedding> embedding_;
  std::vector<Block> blocks_;
  std::unique_ptr<OutputHead> head_;
  std::optional<FutureHeads> future_;
  ParameterId final_gain_ = 0;
  static constexpr int no_bucket = -1;  // of a table by rows
  int embedding_bucket_ = 0, tables_bucket_ = 0, replicated_bucket_ = 0;
  std::vector<int> layer_buckets_, head_buckets_;
  std::vector<int> input_buckets_;  // read before the first layer's: all gains are among them

  Buffer documents_;  // of scratch_.documents

  Buffer activation_storage_;
  std::vector<Block::Activations> activations_;
  Tensor final_input_, hidden_, hidden_gradient_;  // (n, d) A
  Tensor final_rstd_;                              // (n) f32
  Tensor last_hidden_;                             // (B, d) A, generation only
  Tensor future_targets_;                          // (F, n) i32, of several tensor ranks
  HeadMarks head_marks_;
  std::optional<KvCache> cache_;  // generation only
};

}  // namespace vqlm
