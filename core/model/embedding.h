// Token embedding. The table is sharded over its columns, which needs no divisibility of the vocabulary; a
// table that a head reads, too, a tied dense one or a VQ head's members, is sharded over the vocabulary instead, unevenly
// where that does not divide. The rows of tables at the input are added to it. One that is shared with a low-rank head has
// rows of that head's width, u (r), and its projection A (r, d) makes embeddings A^T u of them (ALBERT, arXiv 1909.11942).
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "core/model/batch_shape.h"
#include "core/model/ngram_tables.h"
#include "core/model/scratch.h"
#include "core/parameters.h"

namespace vqlm {

class Embedding {
 public:
  struct Options {
    int bucket = 0;              // of whole gradients
    bool by_vocabulary = false;  // sharded so, for a head
    bool tied = false;           // the head multiplies by it: padded for the back end
    std::int64_t width = 0;      // of the table's rows, d unless project_by() follows
    float stddev = 0;            // of its first values
    std::int64_t micro_batches =
        0;                  // of a step; above 0: gradients are of touched rows (StepRows), and no bucket has them
    BatchShape batch = {};  // of a micro-batch, for these
  };
  /// Adds the table. `ngrams`, which must outlive this, are the tables at the input: none behind a projection. Gradients by rows
  /// are of a table that nothing else reads, and so none that is tied.
  Embedding(const TensorParallel& tensor, const ModelConfig& config, ParameterStore& parameters, const Options& options,
            const NgramTables& ngrams);
  /// A (r, d), whole on every rank, for at most `rows` rows x in forward().
  void project_by(ParameterId projection, std::int64_t rows);

  /// The table's parameter, for a tied head: rows part_of(vocab_size) of (V, width).
  ParameterId table() const { return table_; }
  /// Gradients by rows; none otherwise. The calls below do nothing then.
  std::optional<RowTable> by_rows();
  /// Gradients by rows alone: the tokens (M, B, T) of the coming step's micro-batches, and which of these comes next.
  void begin_step(std::span<const std::int32_t> tokens);
  void begin_micro_batch(std::int64_t number);

  /// Multiply-adds of an embedding: r d behind a projection, else none.
  double multiply_adds() const;

  /// x (n, d) overwritten: this rank's rows of the embeddings of ids (N), for which the tables' rows must have been found, times
  /// model.embedding_scale.
  void forward(Tensor x, Tensor ids, const Scratch& scratch) const;
  /// The gradients of the table, of those at the input and of a projection accumulate, from dx (n, d), which is scaled in place.
  /// After the forward() of the same ids.
  void backward(Tensor dx, Tensor ids, const Scratch& scratch) const;

 private:
  /// forward() and backward() of the table alone: rows (n, width).
  void look_up(Tensor rows, Tensor ids, const Scratch& scratch) const;
  void add_gradient(Tensor drows, Tensor ids, const Scratch& scratch) const;

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  const NgramTables& ngrams_;
  bool by_vocabulary_;
  float scale_;
  std::int64_t first_row_ = 0;
  ParameterId table_;
  std::unique_ptr<StepRows> step_;  // of gradients by rows
  std::optional<ParameterId> projection_;
  Buffer looked_up_storage_;
  Tensor looked_up_;  // (n, r) A: rows in front of the projection, kept for backward, which leaves their gradient there
};

}  // namespace vqlm
