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
          .hidden_matrix = true,
          .gradient_start = GradientStart::product};
}

}  // namespace

AttentionLayer::AttentionLayer(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
                               ParameterStore& parameters, const LayerBuckets& buckets, Tensor rope_frequencies,
                               int layer, const std::string& prefix)
    : tensor_(tensor),
      parameters_(parameters),
      d_model_(config.d_model),
      rope_frequencies_(config.rotates(layer) ? rope_frequencies : Tensor{}) {
  shape_ = {.batch = batch.batch,
            .seq_len = batch.seq_len,
            .heads = config.n_heads / tensor.size(),
            .kv_heads = config.n_kv_heads / tensor.size(),
            .head_dim = config.head_dim(),
            .scale = config.attention_scale > 0 ? 1.0f / std::sqrt(config.attention_scale) : 0,
            .window = config.window_of(layer)};
  const std::int64_t query_rows = std::int64_t{shape_.heads} * shape_.head_dim;
  const std::int64_t kv_rows = std::int64_t{shape_.kv_heads} * shape_.head_dim;
  qkv_ = parameters.add(buckets.layer, {row_slice(prefix + "q_proj.weight", query_rows, d_model_, tensor),
                                        row_slice(prefix + "k_proj.weight", kv_rows, d_model_, tensor),
                                        row_slice(prefix + "v_proj.weight", kv_rows, d_model_, tensor)});
  if (config.attention_bias) {
    for (const auto& [projection, heads] :
         {std::pair{"q_proj", config.n_heads}, {"k_proj", config.n_kv_heads}, {"v_proj", config.n_kv_heads}}) {
      const std::int64_t size = std::int64_t{heads} * shape_.head_dim;
      const auto id = parameters.add(
          buckets.replicated, {replicated_parameter(prefix + projection + ".bias", {size}, 0, ParameterRole::block)});
      if (!bias_) bias_ = id;
    }
  }
  if (config.qk_norm != QkNorm::none) norm_.emplace(tensor, config, shape_, parameters, buckets.replicated, prefix);
  output_ = parameters.add(buckets.layer, {{.name = prefix + "o_proj.weight",
                                            .global_shape = {d_model_, query_rows * tensor.size()},
                                            .offset = {0, query_rows * tensor.rank()},
                                            .shape = {d_model_, query_rows},
                                            .init = {.stddev = config.output_stddev()},
                                            .role = ParameterRole::block,
                                            .hidden_matrix = true,
                                            .gradient_start = GradientStart::product}});
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
  if (!norm_) return;
  arena.add(saved.projected, {rows, shape_.row()}, a);
  arena.add(saved.squares, {rows, norm_->groups()}, DType::f32);
}

template <class Run>
void AttentionLayer::for_biases(const Run& run) const {
  if (!bias_) return;
  std::int64_t column = 0;
  for (ParameterId id = *bias_; id < *bias_ + 3; ++id) {
    const std::int64_t size = parameters_.operand(id).numel() / tensor_.size();
    run(id, column, size * tensor_.rank(), size);
    column += size;
  }
}

void AttentionLayer::project(Tensor x, const Activations& saved, const AttentionShape& shape) const {
  Backend& backend = tensor_.backend();
  const Tensor projected = norm_ ? saved.projected : saved.qkv;
  backend.run(Matmul{.c = projected,
                     .a = x,
                     .b = parameters_.fused_operand(qkv_, 3),
                     .tb = Transpose::yes,
                     .accumulate = Accumulate::no});
  for_biases([&](ParameterId id, std::int64_t column, std::int64_t begin, std::int64_t size) {
    backend.run(AddBias{.x = projected, .bias = parameters_.operand(id).range(begin, size), .first = column});
  });
  if (norm_) norm_->forward(saved.qkv, projected, saved.squares, shape);
}

void AttentionLayer::forward(Tensor y, Tensor x, const Activations& saved, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor rows = tensor_.gather(x, scratch.gathered);  // (N, d)
  project(rows, saved, shape_);
  if (rope_frequencies_)
    backend.run(RopeForward{.qkv = saved.qkv, .shape = shape_, .positions = {.frequencies = rope_frequencies_}});
  const Tensor lse = saved.lse.view({shape_.batch, shape_.heads, shape_.seq_len});
  backend.run(AttentionForward{
      .out = saved.out, .lse = lse, .qkv = saved.qkv, .shape = shape_, .documents = scratch.documents});
  const Tensor partial = tensor_.size() == 1 ? y : scratch.partial;  // (N, d)
  backend.run(Matmul{.c = partial,
                     .a = saved.out,
                     .b = parameters_.operand(output_),
                     .tb = Transpose::yes,
                     .accumulate = Accumulate::no});
  tensor_.reduce_scatter(y, partial);
}

AttentionLayer::Activations AttentionLayer::first_rows(const Activations& saved, std::int64_t rows) {
  return {.qkv = saved.qkv.rows(0, rows),
          .out = saved.out.rows(0, rows),
          .lse = {},
          .projected = saved.projected ? saved.projected.rows(0, rows) : Tensor{},
          .squares = saved.squares ? saved.squares.rows(0, rows) : Tensor{}};
}

void AttentionLayer::advance(Tensor y, Tensor x, const Activations& saved, const CachedLayer& cache) const {
  Backend& backend = tensor_.backend();
  AttentionShape shape = shape_;
  shape.seq_len = x.extent(0) / shape.batch;
  project(x, saved, shape);
  if (rope_frequencies_) {
    backend.run(RopeForward{
        .qkv = saved.qkv, .shape = shape, .positions = {.frequencies = rope_frequencies_, .first = cache.past}});
  }
  backend.run(AttentionCached{.out = saved.out,
                              .keys = cache.keys,
                              .values = cache.values,
                              .qkv = saved.qkv,
                              .shape = shape,
                              .past = cache.past,
                              .documents = cache.documents});
  backend.run(Matmul{
      .c = y, .a = saved.out, .b = parameters_.operand(output_), .tb = Transpose::yes, .accumulate = Accumulate::no});
}

void AttentionLayer::backward(Tensor dx, Tensor dy, Tensor x, const Activations& saved, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor dy_rows = tensor_.gather(dy, scratch.gathered_gradient);                    // (N, d)
  const Tensor dout = scratch.hidden.range(0, saved.out.numel()).view(saved.out.shape());  // (N, width)
  const Tensor dqkv = scratch.qkv_gradient;                                                // (N, row)
  backend.run(Matmul{.c = dout, .a = dy_rows, .b = parameters_.operand(output_), .accumulate = Accumulate::no});
  const auto doutput = parameters_.product_gradient(output_);
  backend.run(
      Matmul{.c = doutput.c, .a = dy_rows, .b = saved.out, .ta = Transpose::yes, .accumulate = doutput.accumulate});
  backend.run(AttentionBackward{.dqkv = dqkv,
                                .dout = dout,
                                .out = saved.out,
                                .lse = saved.lse,
                                .qkv = saved.qkv,
                                .shape = shape_,
                                .documents = scratch.documents});
  if (rope_frequencies_)
    backend.run(RopeBackward{.dqkv = dqkv, .shape = shape_, .positions = {.frequencies = rope_frequencies_}});
  if (norm_) norm_->backward(dqkv, saved.projected, saved.squares, scratch.qk_dots, shape_);
  for_biases([&](ParameterId id, std::int64_t column, std::int64_t begin, std::int64_t size) {
    backend.run(AddColumnSums{.out = parameters_.gradient(id).range(begin, size), .x = dqkv, .first = column});
  });
  const Tensor rows = tensor_.gather(x, scratch.gathered);
  const auto dweight = parameters_.product_gradient(qkv_, 3);
  backend.run(Matmul{.c = dweight.c, .a = dqkv, .b = rows, .ta = Transpose::yes, .accumulate = dweight.accumulate});
  const Tensor partial = tensor_.size() == 1 ? dx : scratch.partial;
  backend.run(Matmul{.c = partial, .a = dqkv, .b = parameters_.fused_operand(qkv_, 3), .accumulate = Accumulate::no});
  tensor_.reduce_scatter(dx, partial);
}

}  // namespace vqlm
