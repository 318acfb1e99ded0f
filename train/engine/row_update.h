// The update of a table of which a step touches few rows (core/model/step_rows.h): their gradients, their sums, AdamW and the
// updated values are of touched rows alone, whatever the table's size.
//
// Rows have owners among the data ranks, contiguous and equal parts of the table, where their moments and f32 values lie as
// those of any bucket (ZeRO-1). Before the step's forward pass the ranks tell each owner which of its rows they touch; after
// backward one exchange of blocks of different sizes brings the gradients there, which the owner adds in rank order; it updates
// the rows that any rank touched, and one gathering brings these to all ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/backend.h"
#include "core/model/step_rows.h"
#include "core/ops/adamw.h"
#include "core/parameters.h"
#include "dist/process_grid.h"

namespace vqlm {

class RowUpdate {
 public:
  /// table: a parameter with a bucket by rows; m and v: its moments here, (rows of an owner, width), absent where it owns none of
  /// the table's. All must outlive this.
  RowUpdate(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters, ParameterId table, StepRows& step,
            Tensor m, Tensor v);

  /// Exchanges which rows the coming step touches, once step_rows have them. Collective over the data group; blocks the host.
  void plan();
  /// Enqueues the sums of the gradients, which must be complete.
  void reduce();
  /// (rows, width) f32: the gradients of this rank's rows, after reduce().
  Tensor reduced() const { return reduced_; }
  /// Enqueues AdamW of this rank's rows, then the gathering of all updated ones.
  void update(const AdamWStep& step, Tensor norm_squared);

 private:
  /// Device memory that is made again where it is too small; what it held is lost.
  class Room {
   public:
    Tensor get(Backend& backend, Shape shape, DType dtype);

   private:
    Buffer buffer_;
    std::size_t bytes_ = 0;
  };

  void reserve();
  bool alone() const { return grid_.data_size() == 1; }
  void join(const Event& done) { backend_.wait(backend_.compute_stream(), done); }
  std::vector<std::int32_t> exchange_counts(const std::vector<std::int32_t>& counts);
  void exchange_rows();
  void plan_gathering();
  /// Calls visit for parts of the owners' lists, with all owners' rows of the part (D n) and the first place of each list.
  void for_each_gathering(const std::function<void(Tensor rows, std::int64_t first)>& visit);
  void gather();

  Backend& backend_;
  const ProcessGrid& grid_;
  ParameterStore& parameters_;
  ParameterId table_;
  StepRows& step_;
  Tensor m_, v_;
  std::int64_t owner_rows_, width_;

  std::vector<std::int64_t> sent_, received_;  // numbers of rows to and from each data rank
  std::vector<std::int32_t> rows_;             // touched by any rank, of this owner's part, ascending
  Tensor places_;                              // (sum of received_) i32: of each received row in rows_
  Tensor own_rows_;                            // (rows_) i32
  Tensor gathered_rows_;  // (D most) i32: rows of the table, -1 where an owner has fewer, part by part of what is gathered at once
  std::int64_t most_ = 0;                      // rows of an owner in this step
  Tensor reduced_;
  Room counts_room_, ids_room_, places_room_, own_room_, gathered_ids_room_, block_room_, sums_room_, values_room_;
};

}  // namespace vqlm
