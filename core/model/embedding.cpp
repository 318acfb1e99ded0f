#include "core/model/embedding.h"

namespace vqlm {

Embedding::Embedding(const TensorParallel& tensor, const ModelConfig& config, ParameterStore& parameters, int bucket,
                     bool tied, float stddev, const NgramTables& ngrams)
    : tensor_(tensor), parameters_(parameters), ngrams_(ngrams), tied_(tied), scale_(config.embedding_scale) {
  Parameter table{.name = "model.embed_tokens.weight",
                  .global_shape = {config.vocab_size, config.d_model},
                  .offset = {},
                  .shape = {},
                  .init = {.stddev = stddev},
                  .role = ParameterRole::embedding};
  if (tied) {
    const auto part = tensor.part_of(config.vocab_size);
    first_row_ = part.begin;
    table.offset = {part.begin, 0};
    table.shape = {part.count, config.d_model};
    table.padded_rows = tensor.backend().padded_classes(part.count);
  } else {
    const std::int64_t columns = config.d_model / tensor.size();
    table.offset = {0, columns * tensor.rank()};
    table.shape = {config.vocab_size, columns};
  }
  table_ = parameters.add(bucket, {table});
}

void Embedding::forward(Tensor x, Tensor ids, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor table = parameters_.operand(table_);
  if (tensor_.size() == 1) {
    backend.run(EmbeddingForward{.out = x, .ids = ids, .table = table, .first_row = 0});
    ngrams_.add_rows(x);
  } else if (tied_) {
    backend.run(EmbeddingForward{.out = scratch.partial,
                                 .ids = ids,
                                 .table = table,
                                 .first_row = first_row_});  // (N, d), zeros for other ranks' tokens
    ngrams_.add_rows(scratch.partial);
    tensor_.reduce_scatter(x, scratch.partial);
  } else {
    const Tensor columns = scratch.partial.range(0, x.numel()).view({ids.numel(), table.extent(1)});  // (N, d / P)
    backend.run(EmbeddingForward{.out = columns, .ids = ids, .table = table, .first_row = 0});
    ngrams_.add_rows(columns);
    tensor_.columns_to_rows(x, columns, scratch.gathered.range(0, x.numel()));
  }
  if (scale_ != 1) backend.run(Scale{.x = x, .factor = scale_});
}

void Embedding::backward(Tensor dx, Tensor ids, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor dtable = parameters_.gradient(table_);
  if (scale_ != 1) backend.run(Scale{.x = dx, .factor = scale_});
  Tensor gradient = dx;  // (N, d), or (N, d / P) of this rank's columns
  if (tensor_.size() > 1 && tied_) {
    gradient = tensor_.gather(dx, scratch.gathered_gradient);
  } else if (tensor_.size() > 1) {
    gradient = scratch.partial.range(0, dx.numel()).view({ids.numel(), dtable.extent(1)});
    tensor_.rows_to_columns(gradient, dx, scratch.gathered.range(0, dx.numel()));
  }
  backend.run(EmbeddingBackward{.dtable = dtable, .dout = gradient, .ids = ids, .first_row = first_row_});
  ngrams_.backward(gradient);
}

}  // namespace vqlm
