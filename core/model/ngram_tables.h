// Tables at the input (Over-Tokenized Transformer, arXiv 2501.16975; Engram, 2601.07372): beside a token's row of the embedding
// stands a row of each table, chosen by a hash of the last tokens,
//   x_t = E[id_t] + sum over tables i of B_i[hash_i(id_{t - order_i + 1}, ..., id_t)].
// They hold what the vocabulary matrix of an output layer would cost, and cost no products. An n-gram never reaches over the
// beginning of its sequence, nor of its document where documents are masked: there a table adds nothing. Tables are sharded as
// the embedding is, over columns, or over rows where a head reads it, too.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/model/batch_shape.h"
#include "core/model/step_rows.h"
#include "core/model_config.h"
#include "core/parameters.h"
#include "core/tensor_parallel.h"

namespace vqlm {

class NgramTables {
 public:
  struct Options {
    float stddev = 0;            // of the first values
    int bucket = 0;              // of whole gradients
    bool by_vocabulary = false;  // the embedding is sharded over its rows, and these likewise
    std::int64_t history = 0;  // generation: tokens of a sequence that are remembered from one find_rows() to the next
    std::int64_t micro_batches =
        0;  // of a step; above 0: gradients are of touched rows (StepRows), and no bucket has them
  };
  /// Adds config.ngram_tables.
  NgramTables(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
              ParameterStore& parameters, const Options& options);

  /// Those with gradients by rows.
  std::vector<RowTable> by_rows();
  /// Gradients by rows alone: the tokens (M, B, T) of the coming step's micro-batches, and which of these comes next. Nothing
  /// otherwise.
  void begin_step(std::span<const std::int32_t> tokens);
  void begin_micro_batch(std::int64_t number);

  /// For the calls below, until the next one: tokens (B, T) i32 at positions from `past` on; documents as FindDocuments writes
  /// them, absent where they are not masked.
  void find_rows(Tensor tokens, std::int64_t past, Tensor documents);
  /// sums (N, w) A, w being the embedding's columns here (d where the tables are cut by rows), in place: the tables' rows are
  /// added.
  void add_rows(Tensor sums) const;
  /// The tables' gradients accumulate, from that of what add_rows() gave, (N, w) A.
  void backward(Tensor gradient) const;

 private:
  struct Table {
    NgramTable config;
    ParameterId id;
    std::int64_t first_row;
    Tensor rows;                     // (N) i32, the most of a find_rows()
    std::unique_ptr<StepRows> step;  // of gradients by rows
  };
  /// Of the tokens (M, B, T), less first_row.
  std::vector<std::int32_t> rows_of(const Table& table, int number, std::span<const std::int32_t> tokens) const;

  Backend& backend_;
  ParameterStore& parameters_;
  BatchShape batch_;
  std::int32_t document_end_;
  std::vector<Table> tables_;
  std::int64_t found_ = 0;  // tokens of the last find_rows()
  Buffer storage_;
  Tensor history_;  // (B, history) i32
};

}  // namespace vqlm
