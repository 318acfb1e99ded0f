#include "core/model/qk_norm.h"

namespace vqlm {
namespace {

Parameter gain(const std::string& name, std::int64_t size) {
  Parameter parameter = replicated_parameter(name, {size}, 0, ParameterRole::gain);
  parameter.init.value = 1;
  parameter.decay = true;  // as the role's ratio says
  return parameter;
}

}  // namespace

QkNormLayer::QkNormLayer(const TensorParallel& tensor, const ModelConfig& config, const AttentionShape& shape,
                         ParameterStore& parameters, int bucket, const std::string& prefix)
    : tensor_(tensor),
      parameters_(parameters),
      groups_(config.qk_norm == QkNorm::head ? shape.heads + shape.kv_heads : 2),
      ranks_(config.qk_norm == QkNorm::head ? 1 : tensor.size()),
      eps_(config.norm_eps) {
  const std::int64_t width = shape.head_dim;
  const bool heads = config.qk_norm == QkNorm::head;
  query_ = parameters.add(bucket, {gain(prefix + "q_norm.weight", heads ? width : config.n_heads * width)});
  key_ = parameters.add(bucket, {gain(prefix + "k_norm.weight", heads ? width : config.n_kv_heads * width)});
}

QkNormLayer::Gains QkNormLayer::mine(Tensor query, Tensor key) const {
  if (ranks_ == 1) return {query, key};
  const std::int64_t queries = query.numel() / ranks_, keys = key.numel() / ranks_;
  return {query.range(queries * tensor_.rank(), queries), key.range(keys * tensor_.rank(), keys)};
}

void QkNormLayer::forward(Tensor qkv, Tensor x, Tensor squares, const AttentionShape& shape) const {
  Backend& backend = tensor_.backend();
  const Gains gain = gains();
  backend.run(QkSquares{.squares = squares, .x = x, .shape = shape});
  if (ranks_ > 1) tensor_.all_reduce(squares);
  backend.run(QkNormForward{.qkv = qkv,
                            .x = x,
                            .squares = squares,
                            .q_gain = gain.query,
                            .k_gain = gain.key,
                            .shape = shape,
                            .ranks = ranks_,
                            .eps = eps_});
}

void QkNormLayer::backward(Tensor dqkv, Tensor x, Tensor squares, Tensor dots, const AttentionShape& shape) const {
  Backend& backend = tensor_.backend();
  const Gains gain = gains(), dgain = mine(parameters_.gradient(query_), parameters_.gradient(key_));
  backend.run(QkDots{.dots = dots, .dqkv = dqkv, .x = x, .q_gain = gain.query, .k_gain = gain.key, .shape = shape});
  if (ranks_ > 1) tensor_.all_reduce(dots);
  backend.run(QkNormBackward{.dqkv = dqkv,
                             .q_dgain = dgain.query,
                             .k_dgain = dgain.key,
                             .x = x,
                             .squares = squares,
                             .dots = dots,
                             .q_gain = gain.query,
                             .k_gain = gain.key,
                             .shape = shape,
                             .ranks = ranks_,
                             .eps = eps_});
}

}  // namespace vqlm
