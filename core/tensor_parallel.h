// Tensor parallelism with sequence parallelism (Megatron: arXiv 1909.08053, 2205.05198). Between the matrix
// products every rank of the tensor group holds n = N / P of the micro-batch's N tokens; a column-parallel
// product sees all N rows after an all-gather, and a row-parallel product's partial sums are reduce-scattered
// back to n rows.
#pragma once

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

class TensorParallel {
 public:
  TensorParallel(Backend& backend, Communicator& group) : backend_(backend), group_(group) {}

  int rank() const { return group_.rank(); }
  int size() const { return group_.size(); }
  Backend& backend() const { return backend_; }

  /// All ranks' rows x (n, ...) as (P n, ...): in `scratch`, or x itself where P = 1 (scratch may be absent
  /// then).
  Tensor gather(Tensor x, Tensor scratch) const;
  /// out (n, ...): this rank's rows of the sum over ranks of partial (P n, ...). No copy where out is partial
  /// (P = 1).
  void reduce_scatter(Tensor out, Tensor partial) const;
  /// x f32, in place: the sum over the ranks. Nothing at P = 1.
  void all_reduce(Tensor x) const;
  /// Columns to rows: x (P n, w / P), every rank's slice of the columns of all rows, becomes out (n, w), all
  /// columns of this rank's rows. scratch: as many elements as x.
  void columns_to_rows(Tensor out, Tensor x, Tensor scratch) const;
  /// The inverse, for gradients: x (n, w) becomes out (P n, w / P).
  void rows_to_columns(Tensor out, Tensor x, Tensor scratch) const;

  /// This rank's part [begin, begin + count) of `total` items, sizes equal to within one.
  struct Part {
    std::int64_t begin;
    std::int64_t count;
  };
  Part part_of(std::int64_t total) const {
    const std::int64_t begin = total * rank() / size();
    return {begin, total * (rank() + 1) / size() - begin};
  }

 private:
  /// Later compute waits for `done`.
  void join(const Event& done) const { backend_.wait(backend_.compute_stream(), done); }

  Backend& backend_;
  Communicator& group_;
};

}  // namespace vqlm
