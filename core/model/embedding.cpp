#include "core/model/embedding.h"

namespace vqlm {
namespace {

/// A part of the scratch memory (N, d): (N, width) of the table.
Tensor all_rows(Tensor scratch, Tensor ids, Tensor table) {
  const std::int64_t rows = ids.numel(), width = table.extent(1);
  return scratch.range(0, rows * width).view({rows, width});
}

}  // namespace

Embedding::Embedding(const TensorParallel& tensor, const ModelConfig& config, ParameterStore& parameters,
                     const Options& options, const NgramTables& ngrams)
    : tensor_(tensor),
      parameters_(parameters),
      ngrams_(ngrams),
      by_vocabulary_(options.by_vocabulary),
      scale_(config.embedding_scale) {
  const std::int64_t width = options.width;
  const bool by_rows = options.micro_batches > 0;
  VQLM_ASSERT(!(by_rows && by_vocabulary_) && (by_vocabulary_ || !options.tied));
  Parameter table{.name = "model.embed_tokens.weight",
                  .global_shape = {config.vocab_size, width},
                  .offset = {},
                  .shape = {},
                  .init = {.stddev = options.stddev},
                  .role = ParameterRole::embedding};
  if (by_vocabulary_) {
    const auto part = tensor.part_of(config.vocab_size);
    first_row_ = part.begin;
    table.offset = {part.begin, 0};
    table.shape = {part.count, width};
    if (options.tied) {
      table.padded_rows = tensor.backend().padded_classes(part.count);
      table.gradient_start = GradientStart::product;  // of the head, which comes first in backward
    }
  } else {
    const std::int64_t columns = width / tensor.size();
    table.offset = {0, columns * tensor.rank()};
    table.shape = {config.vocab_size, columns};
  }
  table_ = by_rows ? parameters.add_table(table) : parameters.add(options.bucket, {table});
  if (!by_rows) return;
  step_ = std::make_unique<StepRows>(tensor.backend(), options.micro_batches, options.batch.rows(), table.shape[0],
                                     table.shape[1]);
}

std::optional<RowTable> Embedding::by_rows() {
  if (!step_) return std::nullopt;
  return RowTable{table_, *step_};
}

void Embedding::begin_step(std::span<const std::int32_t> tokens) {
  if (step_) step_->begin(tokens);
}

void Embedding::begin_micro_batch(std::int64_t number) {
  if (step_) step_->select(number);
}

void Embedding::project_by(ParameterId projection, std::int64_t rows) {
  Backend& backend = tensor_.backend();
  const Shape shape{rows, parameters_.parameters()[static_cast<std::size_t>(table_)].global_shape[1]};
  projection_ = projection;
  looked_up_storage_ = backend.allocate(static_cast<std::size_t>(shape.numel()) * size_of(backend.activation_dtype()),
                                        MemoryUse::activations);
  looked_up_ = looked_up_storage_.view(shape, backend.activation_dtype());
}

double Embedding::multiply_adds() const {
  return projection_ ? static_cast<double>(parameters_.global_count(*projection_, 1)) : 0;
}

void Embedding::forward(Tensor x, Tensor ids, const Scratch& scratch) const {
  if (!projection_) return look_up(x, ids, scratch);
  const Tensor rows = looked_up_.rows(0, x.extent(0));
  look_up(rows, ids, scratch);
  tensor_.backend().run(
      Matmul{.c = x, .a = rows, .b = parameters_.operand(*projection_), .accumulate = Accumulate::no});
}

void Embedding::backward(Tensor dx, Tensor ids, const Scratch& scratch) const {
  if (!projection_) return add_gradient(dx, ids, scratch);
  Backend& backend = tensor_.backend();
  const Tensor rows = looked_up_.rows(0, dx.extent(0));
  const auto dprojection = parameters_.product_gradient(*projection_);
  backend.run(
      Matmul{.c = dprojection.c, .a = rows, .b = dx, .ta = Transpose::yes, .accumulate = dprojection.accumulate});
  backend.run(Matmul{
      .c = rows, .a = dx, .b = parameters_.operand(*projection_), .tb = Transpose::yes, .accumulate = Accumulate::no});
  add_gradient(rows, ids, scratch);
}

void Embedding::look_up(Tensor x, Tensor ids, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor table = parameters_.operand(table_);
  if (tensor_.size() == 1) {
    backend.run(EmbeddingForward{.out = x, .ids = ids, .table = table, .first_row = 0});
    ngrams_.add_rows(x);
  } else if (by_vocabulary_) {
    const Tensor partial = all_rows(scratch.partial, ids, table);  // (N, width), zeros for other ranks' tokens
    backend.run(EmbeddingForward{.out = partial, .ids = ids, .table = table, .first_row = first_row_});
    ngrams_.add_rows(partial);
    tensor_.reduce_scatter(x, partial);
  } else {
    const Tensor columns = all_rows(scratch.partial, ids, table);  // (N, d / P)
    backend.run(EmbeddingForward{.out = columns, .ids = ids, .table = table, .first_row = 0});
    ngrams_.add_rows(columns);
    tensor_.columns_to_rows(x, columns, scratch.gathered.range(0, x.numel()));
  }
  if (scale_ != 1) backend.run(Scale{.x = x, .factor = scale_});
}

void Embedding::add_gradient(Tensor dx, Tensor ids, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor dtable = step_ ? step_->all_gradients() : parameters_.gradient(table_);
  if (scale_ != 1) backend.run(Scale{.x = dx, .factor = scale_});
  Tensor gradient = dx;  // (N, width), or (N, d / P) of this rank's columns
  if (tensor_.size() > 1 && by_vocabulary_) {
    gradient = tensor_.gather(dx, all_rows(scratch.gathered_gradient, ids, dtable));
  } else if (tensor_.size() > 1) {
    gradient = all_rows(scratch.partial, ids, dtable);
    tensor_.rows_to_columns(gradient, dx, scratch.gathered.range(0, dx.numel()));
  }
  backend.run(EmbeddingBackward{
      .dtable = dtable, .dout = gradient, .ids = step_ ? step_->places() : ids, .first_row = first_row_});
  ngrams_.backward(gradient);
}

}  // namespace vqlm
