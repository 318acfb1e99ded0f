#include "core/model/head/input_codes.h"

#include "core/tensor_arena.h"

namespace vqlm {

InputCodes::InputCodes(const HeadContext& context, std::int64_t clusters)
    : backend_(context.tensor.backend()), parameters_(context.parameters) {
  const std::int64_t d = context.model.d_model, rows = context.input_rows;
  codebook_ = parameters_.add(
      context.buckets.matrices,
      {replicated_parameter("vq_head.input_codebook", {clusters, d}, context.embedding_stddev, ParameterRole::table)});
  TensorArena arena;
  arena.add(clusters_, {rows}, DType::i32);
  arena.add(order_, {rows}, DType::i32);
  arena.add(row_begin_, {clusters + 1}, DType::i32);
  arena.add(vectors_, {rows, d}, backend_.activation_dtype());
  storage_ = arena.allocate(backend_, MemoryUse::workspace);
}

Tensor InputCodes::vectors(Tensor tokens, const CodeMapView& map) {
  const std::int64_t rows = tokens.numel();
  VQLM_ASSERT(rows <= vectors_.extent(0));
  const Tensor clusters = clusters_.rows(0, rows), vectors = vectors_.rows(0, rows);
  // For the clusters alone: the order of the rows is of no use here.
  backend_.run(SortRowsByCluster{
      .clusters = clusters, .order = order_.rows(0, rows), .row_begin = row_begin_, .targets = tokens, .map = map});
  backend_.run(
      EmbeddingForward{.out = vectors, .ids = clusters, .table = parameters_.operand(codebook_), .first_row = 0});
  return vectors;
}

void InputCodes::backward(Tensor dx) {
  backend_.run(EmbeddingBackward{
      .dtable = parameters_.gradient(codebook_), .dout = dx, .ids = clusters_.rows(0, dx.extent(0)), .first_row = 0});
}

}  // namespace vqlm
