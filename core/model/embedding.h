// Token embedding. The table is sharded over its columns, which needs no divisibility of the vocabulary; a
// table that is shared with a dense head is sharded over the vocabulary instead, unevenly where that does not
// divide. The rows of tables at the input are added to it.
#pragma once

#include "core/model/ngram_tables.h"
#include "core/model/scratch.h"
#include "core/parameters.h"

namespace vqlm {

class Embedding {
 public:
  /// Adds the table to the bucket. `tied`: shared with a dense head. stddev: of its first values. `ngrams`, which must outlive
  /// this, are the tables at the input.
  Embedding(const TensorParallel& tensor, const ModelConfig& config, ParameterStore& parameters, int bucket, bool tied,
            float stddev, const NgramTables& ngrams);

  /// The table's parameter, for a tied head: rows part_of(vocab_size) of (V, d).
  ParameterId table() const { return table_; }

  /// x (n, d) overwritten: this rank's rows of the embeddings of ids (N), for which the tables' rows must have been found, times
  /// model.embedding_scale.
  void forward(Tensor x, Tensor ids, const Scratch& scratch) const;
  /// The gradients of the table and of those at the input accumulate, from dx (n, d), which is scaled in place.
  void backward(Tensor dx, Tensor ids, const Scratch& scratch) const;

 private:
  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  const NgramTables& ngrams_;
  bool tied_;
  float scale_;
  std::int64_t first_row_ = 0;
  ParameterId table_;
};

}  // namespace vqlm
