#include "core/model/block.h"

#include <string>

namespace vqlm {

Parameter norm_gain(const std::string& name, std::int64_t d_model) {
  return {.name = name,
          .global_shape = {d_model},
          .offset = {0},
          .shape = {d_model},
          .init = {.value = 1.0f},
          .decay = false};
}

Block::Block(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
             ParameterStore& parameters, int layer)
    : tensor_(tensor),
      parameters_(parameters),
      prefix_("model.layers." + std::to_string(layer) + "."),
      d_model_(config.d_model),
      rows_(batch.rows() / tensor.size()),
      norm_eps_(config.norm_eps),
      attention_(tensor, config, batch, parameters, prefix_ + "self_attn."),
      mlp_(tensor, config, batch, parameters, prefix_ + "mlp.") {}

void Block::add_replicated() {
  input_gain_ = parameters_.add({norm_gain(prefix_ + "input_layernorm.weight", d_model_)});
  middle_gain_ = parameters_.add({norm_gain(prefix_ + "post_attention_layernorm.weight", d_model_)});
}

std::int64_t Block::activation_count() const {
  return rows_ * (4 * d_model_ + 2) + attention_.activation_count() + mlp_.activation_count();
}

Block::Activations Block::cut_activations(Tensor storage) const {
  std::int64_t begin = 0;
  auto cut = [&](std::int64_t count) {
    begin += count;
    return storage.range(begin - count, count);
  };
  Activations saved;
  for (Tensor* tensor : {&saved.input, &saved.middle, &saved.input_normed, &saved.middle_normed}) {
    *tensor = cut(rows_ * d_model_).view({rows_, d_model_});
  }
  saved.input_rstd = cut(rows_);
  saved.middle_rstd = cut(rows_);
  saved.attention = attention_.cut_activations(cut(attention_.activation_count()));
  saved.mlp = mlp_.cut_activations(cut(mlp_.activation_count()));
  return saved;
}

void Block::forward(Tensor x, Tensor branch, const Activations& saved, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  VQLM_ASSERT(branch || x.data() == saved.input.data());
  backend.rmsnorm_forward(saved.input_normed, saved.input_rstd, branch ? saved.input : Tensor{}, x, branch,
                          parameters_.value(input_gain_), norm_eps_);
  attention_.forward(scratch.branch, saved.input_normed, saved.attention, scratch);
  backend.rmsnorm_forward(saved.middle_normed, saved.middle_rstd, saved.middle, saved.input, scratch.branch,
                          parameters_.value(middle_gain_), norm_eps_);
  mlp_.forward(scratch.branch, saved.middle_normed, saved.mlp, scratch);
}

void Block::backward(const Activations& saved, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor residual = scratch.residual_gradient;
  mlp_.backward(scratch.branch, residual, saved.middle_normed, saved.mlp, scratch);
  backend.rmsnorm_backward(residual, parameters_.gradient(middle_gain_), scratch.branch, saved.middle,
                           parameters_.value(middle_gain_), saved.middle_rstd, Accumulate::yes);
  attention_.backward(scratch.branch, residual, saved.input_normed, saved.attention, scratch);
  backend.rmsnorm_backward(residual, parameters_.gradient(input_gain_), scratch.branch, saved.input,
                           parameters_.value(input_gain_), saved.input_rstd, Accumulate::yes);
}

}  // namespace vqlm
