#include "core/model/ngram_tables.h"

#include <string>

#include "core/tensor_arena.h"

namespace vqlm {
namespace {

Parameter table_parameter(const TensorParallel& tensor, const ModelConfig& config, std::size_t number,
                          const NgramTables::Options& options) {
  const std::int64_t rows = config.ngram_tables[number].rows;
  Parameter table{.name = "model.ngram_tables." + std::to_string(number) + ".weight",
                  .global_shape = {rows, config.d_model},
                  .offset = {},
                  .shape = {},
                  .init = {.stddev = options.stddev},
                  .role = ParameterRole::input_table};
  if (options.by_vocabulary) {
    const auto part = tensor.part_of(rows);
    table.offset = {part.begin, 0};
    table.shape = {part.count, config.d_model};
  } else {
    const std::int64_t columns = config.d_model / tensor.size();
    table.offset = {0, columns * tensor.rank()};
    table.shape = {rows, columns};
  }
  return table;
}

}  // namespace

NgramTables::NgramTables(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
                         ParameterStore& parameters, const Options& options)
    : backend_(tensor.backend()), parameters_(parameters), batch_(batch), document_end_(config.document_end) {
  TensorArena arena;
  tables_.reserve(config.ngram_tables.size());  // the arena keeps addresses
  for (std::size_t number = 0; number < config.ngram_tables.size(); ++number) {
    const Parameter parameter = table_parameter(tensor, config, number, options);
    const bool by_rows = options.micro_batches > 0;
    const ParameterId id = by_rows ? parameters.add_table(parameter) : parameters.add(options.bucket, {parameter});
    tables_.push_back({config.ngram_tables[number], id, parameter.offset[0], {}, nullptr});
    if (by_rows) {
      tables_.back().step = std::make_unique<StepRows>(backend_, options.micro_batches, batch.rows(),
                                                       parameter.shape[0], parameter.shape[1]);
    }
    arena.add(tables_.back().rows, {batch.rows()}, DType::i32);
  }
  if (tables_.empty()) return;
  if (options.history > 0) arena.add(history_, {batch.batch, options.history}, DType::i32);
  storage_ = arena.allocate(backend_, MemoryUse::workspace);
}

std::vector<RowTable> NgramTables::by_rows() {
  std::vector<RowTable> found;
  for (Table& table : tables_) {
    if (table.step) found.push_back({table.id, *table.step});
  }
  return found;
}

std::vector<std::int32_t> NgramTables::rows_of(const Table& table, int number,
                                               std::span<const std::int32_t> tokens) const {
  std::vector<std::int32_t> rows;
  rows.reserve(tokens.size());
  std::int64_t there = 0;  // tokens of the sequence, or of its document
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (static_cast<std::int64_t>(i) % batch_.seq_len == 0 || (document_end_ >= 0 && tokens[i - 1] == document_end_))
      there = 0;
    const std::int32_t row = ngram_row_at(&tokens[i], ++there, table.config.order, number, table.config.rows);
    rows.push_back(static_cast<std::int32_t>(row - table.first_row));
  }
  return rows;
}

void NgramTables::begin_step(std::span<const std::int32_t> tokens) {
  for (std::size_t number = 0; number < tables_.size(); ++number) {
    const Table& table = tables_[number];
    if (table.step) table.step->begin(rows_of(table, static_cast<int>(number), tokens));
  }
}

void NgramTables::begin_micro_batch(std::int64_t number) {
  for (const Table& table : tables_) {
    if (table.step) table.step->select(number);
  }
}

void NgramTables::find_rows(Tensor tokens, std::int64_t past, Tensor documents) {
  found_ = tokens.numel();
  for (std::size_t number = 0; number < tables_.size(); ++number) {
    const Table& table = tables_[number];
    backend_.run(NgramRows{.rows = table.rows.rows(0, found_),
                           .tokens = tokens,
                           .history = history_,
                           .documents = documents,
                           .past = past,
                           .order = table.config.order,
                           .table = static_cast<int>(number),
                           .table_rows = table.config.rows});
  }
}

void NgramTables::add_rows(Tensor sums) const {
  for (const Table& table : tables_) {
    backend_.run(EmbeddingForward{.out = sums,
                                  .ids = table.rows.rows(0, found_),
                                  .table = parameters_.operand(table.id),
                                  .base = sums,
                                  .first_row = table.first_row});
  }
}

void NgramTables::backward(Tensor gradient) const {
  for (const Table& table : tables_) {
    if (table.step) {
      backend_.run(EmbeddingBackward{
          .dtable = table.step->all_gradients(), .dout = gradient, .ids = table.step->places(), .first_row = 0});
    } else {
      backend_.run(EmbeddingBackward{.dtable = parameters_.gradient(table.id),
                                     .dout = gradient,
                                     .ids = table.rows.rows(0, found_),
                                     .first_row = table.first_row});
    }
  }
}

}  // namespace vqlm
