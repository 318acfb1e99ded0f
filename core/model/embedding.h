// Token embedding. The table is sharded over its columns, which needs no divisibility of the vocabulary; a
// table that is shared with a dense head is sharded over the vocabulary instead, unevenly where that does not
// divide.
#pragma once

#include "core/model/scratch.h"
#include "core/parameters.h"

namespace vqlm {

class Embedding {
 public:
  /// Adds the table to the store's open bucket. `tied`: shared with a dense head. stddev: of its first values.
  Embedding(const TensorParallel& tensor, const ModelConfig& config, ParameterStore& parameters, int bucket, bool tied,
            float stddev);

  /// The table's parameter, for a tied head: rows part_of(vocab_size) of (V, d).
  ParameterId table() const { return table_; }

  /// x (n, d) overwritten: this rank's rows of the embeddings of ids (N), times model.embedding_scale.
  void forward(Tensor x, Tensor ids, const Scratch& scratch) const;
  /// The table's gradient accumulates, from dx (n, d), which is scaled in place.
  void backward(Tensor dx, Tensor ids, const Scratch& scratch) const;

 private:
  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  bool tied_;
  float scale_;
  std::int64_t first_row_ = 0;
  ParameterId table_;
};

}  // namespace vqlm
