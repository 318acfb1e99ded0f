// The rows of a table that a training step reads on this rank, and their gradients: at most one a token, however large the table
// is. The step's tokens are known before its forward pass, so that a row has its place among the touched ones from the
// beginning, and micro-batches add to compact gradients by the op that serves whole tables.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/parameters.h"

namespace vqlm {

class StepRows {
 public:
  /// Of a table (table_rows, width), for steps of `micro_batches` times `tokens`.
  StepRows(Backend& backend, std::int64_t micro_batches, std::int64_t tokens, std::int64_t table_rows,
           std::int64_t width);

  /// rows (micro_batches, tokens): of every token of the coming step, outside [0, table_rows) where it has none. Their gradients
  /// become zero.
  void begin(std::span<const std::int32_t> rows);
  /// places() are those of this micro-batch from now on.
  void select(std::int64_t micro_batch);

  /// In ascending order.
  std::span<const std::int32_t> touched() const { return touched_; }
  /// (touched, width) f32, in the same order.
  Tensor gradients() const { return gradients_.rows(0, static_cast<std::int64_t>(touched_.size())); }
  /// (most, width): the same with room for any step's rows, which stay where they are.
  Tensor all_gradients() const { return gradients_; }
  /// (tokens) i32: the row of gradients() of each token of the micro-batch, -1 where it has none.
  Tensor places() const { return places_; }

 private:
  Backend& backend_;
  std::int64_t table_rows_;
  std::vector<std::int32_t> touched_, host_places_;
  Buffer storage_, gradient_storage_;
  Tensor all_places_;  // (micro_batches, tokens) i32
  Tensor places_, gradients_;
};

/// A table of which a step has gradients for some rows.
struct RowTable {
  ParameterId id;
  StepRows& step;
};

}  // namespace vqlm
