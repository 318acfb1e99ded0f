#include "core/model/attention_layer.h"

#include <cmath>

namespace vqlm {
namespace {

/// Rows [rank * local, ...) of a (rows, d) projection.
Parameter row_slice(const std::string& name, std::int64_t local, std::int64_t width, const TensorParallel& tensor) {
  return {.name = name,
          .global_shape = {local * tensor.size(), width},
          .offset = {local * tensor.rank(), 0},
          .shape = {local, width},
          .init = {.stddev = 0.02f},
          .role = ParameterRole::block,
          .hidden_matrix = true};
}

}  // namespace

AttentionLayer::AttentionLayer(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
                               ParameterStore& parameters, int bucket, Tensor rope_frequencies,
                               const std::string& prefix)
    : tensor_(tensor), parameters_(parameters), d_model_(config.d_model), rope_frequencies_(rope_frequencies) {
  shape_ = {batch.batch, batch.seq_len, config.n_heads / tensor.size(), config.n_kv_heads / tensor.size(),
            config.head_dim()};
  const std::int64_t query_rows = std::int64_t{shape_.heads} * shape_.head_dim;
  const std::int64_t kv_rows = std::int64_t{shape_.kv_heads} * shape_.head_dim;
  qkv_ = parameters.add(bucket, {row_slice(prefix + "q_proj.weight", query_rows, d_model_, tensor),
                                 row_slice(prefix + "k_proj.weight", kv_rows, d_model_, tensor),
                                 row_slice(prefix + "v_proj.weight", kv_rows, d_model_, tensor)});
  // Residual branches start smaller by sqrt(2 layers), as in GPT-2, so that the stream's variance does not
  // grow.
  output_ = parameters.add(bucket, {{.name = prefix + "o_proj.weight",
                                     .global_shape = {d_model_, query_rows * tensor.size()},
                                     .offset = {0, query_rows * tensor.rank()},
                                     .shape = {d_model_, query_rows},
                                     .init = {.stddev = 0.02f / std::sqrt(2.0f * static_cast<float>(config.n_layers))},
                                     .role = ParameterRole::block,
                                     .hidden_matrix = true}});
}

void AttentionLayer::reshape(const BatchShape& batch) {
  VQLM_ASSERT(batch.rows() == shape_.batch * shape_.seq_len);
  shape_.batch = batch.batch;
  shape_.seq_len = batch.seq_len;
}

void AttentionLayer::place_activations(TensorArena& arena, Activations& saved) const {
  const std::int64_t rows = shape_.batch * shape_.seq_len;
  const DType a = tensor_.backend().activation_dtype();
  arena.add(saved.qkv, {rows, shape_.row()}, a);
  arena.add(saved.out, {rows, std::int64_t{shape_.heads} * shape_.head_dim}, a);
  arena.add(saved.lse, {shape_.batch, shape_.heads, shape_.seq_len}, DType::f32);
}

void AttentionLayer::forward(Tensor y, Tensor x, const Activations& saved, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor rows = tensor_.gather(x, scratch.gathered);  // (N, d)
  backend.run(Matmul{.c = saved.qkv,
                     .a = rows,
                     .b = parameters_.fused_operand(qkv_, 3),
                     .tb = Transpose::yes,
                     .accumulate = Accumulate::no});
  backend.run(RopeForward{.qkv = saved.qkv, .shape = shape_, .positions = {.frequencies = rope_frequencies_}});
  const Tensor lse = saved.lse.view({shape_.batch, shape_.heads, shape_.seq_len});
  backend.run(AttentionForward{.out = saved.out, .lse = lse, .qkv = saved.qkv, .shape = shape_});
  const Tensor partial = tensor_.size() == 1 ? y : scratch.partial;  // (N, d)
  backend.run(Matmul{.c = partial,
                     .a = saved.out,
                     .b = parameters_.operand(output_),
                     .tb = Transpose::yes,
                     .accumulate = Accumulate::no});
  tensor_.reduce_scatter(y, partial);
}

AttentionLayer::Activations AttentionLayer::first_rows(const Activations& saved, std::int64_t rows) {
  return {.qkv = saved.qkv.rows(0, rows), .out = saved.out.rows(0, rows), .lse = {}};
}

void AttentionLayer::advance(Tensor y, Tensor x, const Activations& saved, const CachedLayer& cache) const {
  Backend& backend = tensor_.backend();
  AttentionShape shape = shape_;
  shape.seq_len = x.extent(0) / shape.batch;
  backend.run(Matmul{.c = saved.qkv,
                     .a = x,
                     .b = parameters_.fused_operand(qkv_, 3),
                     .tb = Transpose::yes,
                     .accumulate = Accumulate::no});
  backend.run(RopeForward{
      .qkv = saved.qkv, .shape = shape, .positions = {.frequencies = rope_frequencies_, .first = cache.past}});
  backend.run(AttentionCached{.out = saved.out,
                              .keys = cache.keys,
                              .values = cache.values,
                              .qkv = saved.qkv,
                              .shape = shape,
                              .past = cache.past});
  backend.run(Matmul{
      .c = y, .a = saved.out, .b = parameters_.operand(output_), .tb = Transpose::yes, .accumulate = Accumulate::no});
}

void AttentionLayer::backward(Tensor dx, Tensor dy, Tensor x, const Activations& saved, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor dy_rows = tensor_.gather(dy, scratch.gathered_gradient);                    // (N, d)
  const Tensor dout = scratch.hidden.range(0, saved.out.numel()).view(saved.out.shape());  // (N, width)
  const Tensor dqkv = scratch.qkv_gradient;                                                // (N, row)
  backend.run(Matmul{.c = dout, .a = dy_rows, .b = parameters_.operand(output_), .accumulate = Accumulate::no});
  backend.run(Matmul{.c = parameters_.gradient(output_),
                     .a = dy_rows,
                     .b = saved.out,
                     .ta = Transpose::yes,
                     .accumulate = Accumulate::yes});
  backend.run(AttentionBackward{
      .dqkv = dqkv, .dout = dout, .out = saved.out, .lse = saved.lse, .qkv = saved.qkv, .shape = shape_});
  backend.run(RopeBackward{.dqkv = dqkv, .shape = shape_, .positions = {.frequencies = rope_frequencies_}});
  const Tensor rows = tensor_.gather(x, scratch.gathered);
  backend.run(Matmul{.c = parameters_.fused_gradient(qkv_, 3),
                     .a = dqkv,
                     .b = rows,
                     .ta = Transpose::yes,
                     .accumulate = Accumulate::yes});
  const Tensor partial = tensor_.size() == 1 ? dx : scratch.partial;
  backend.run(Matmul{.c = partial, .a = dqkv, .b = parameters_.fused_operand(qkv_, 3), .accumulate = Accumulate::no});
  tensor_.reduce_scatter(dx, partial);
}

}  // namespace vqlm
