#include "core/model/block.h"

#include <string>

namespace vqlm {
namespace {

std::string prefix_of(int layer) {
  return "model.layers." + std::to_string(layer) + ".";
}

}  // namespace

Parameter norm_gain(const std::string& name, std::int64_t d_model) {
  return {.name = name,
          .global_shape = {d_model},
          .offset = {0},
          .shape = {d_model},
          .init = {.value = 1.0f},
          .role = ParameterRole::gain};
}

Block::Block(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
             ParameterStore& parameters, const Buckets& buckets, Tensor rope_frequencies, int layer)
    : tensor_(tensor),
      parameters_(parameters),
      d_model_(config.d_model),
      rows_(batch.rows() / tensor.size()),
      norm_eps_(config.norm_eps),
      input_gain_(
          parameters.add(buckets.replicated, {norm_gain(prefix_of(layer) + "input_layernorm.weight", d_model_)})),
      attention_(tensor, config, batch, parameters, buckets.layer, rope_frequencies, prefix_of(layer) + "self_attn."),
      middle_gain_(parameters.add(buckets.replicated,
                                  {norm_gain(prefix_of(layer) + "post_attention_layernorm.weight", d_model_)})),
      mlp_(tensor, config, batch, parameters, buckets.layer, prefix_of(layer) + "mlp.") {}

void Block::place_activations(TensorArena& arena, Activations& saved, const ActivationGroups& groups) const {
  const DType a = tensor_.backend().activation_dtype();
  const auto place_stream = [&](Tensor& stream) { arena.add(stream, {rows_, d_model_}, a); };
  if (groups.input) place_stream(saved.input);
  if (groups.costly) {
    place_stream(saved.middle);
    arena.add(saved.input_rstd, {rows_}, DType::f32);
    arena.add(saved.middle_rstd, {rows_}, DType::f32);
    attention_.place_activations(arena, saved.attention);
    mlp_.place_gate_up(arena, saved.mlp);
  }
  if (groups.cheap) {
    place_stream(saved.input_normed);
    place_stream(saved.middle_normed);
    mlp_.place_hidden(arena, saved.mlp);
  }
}

void Block::share(Activations& saved, const Activations& shared, Recompute recompute) {
  const Activations own = saved;
  if (recompute == Recompute::block) {
    saved = shared;
    saved.input = own.input;
  } else if (recompute == Recompute::cheap) {
    saved.input_normed = shared.input_normed;
    saved.middle_normed = shared.middle_normed;
    saved.mlp.hidden = shared.mlp.hidden;
  }
}

void Block::norm_input(Tensor x, Tensor branch, const Activations& saved) const {
  tensor_.backend().run(RmsnormForward{.y = saved.input_normed,
                                       .rstd = saved.input_rstd,
                                       .sum = branch ? saved.input : Tensor{},
                                       .x = x,
                                       .branch = branch,
                                       .gain = parameters_.operand(input_gain_),
                                       .eps = norm_eps_});
}

void Block::norm_middle(Tensor branch, const Activations& saved) const {
  tensor_.backend().run(RmsnormForward{.y = saved.middle_normed,
                                       .rstd = saved.middle_rstd,
                                       .sum = branch ? saved.middle : Tensor{},
                                       .x = branch ? saved.input : saved.middle,
                                       .branch = branch,
                                       .gain = parameters_.operand(middle_gain_),
                                       .eps = norm_eps_});
}

void Block::forward(Tensor x, Tensor branch, const Activations& saved, const Scratch& scratch) const {
  VQLM_ASSERT(branch || x.data() == saved.input.data());
  norm_input(x, branch, saved);
  attention_.forward(scratch.branch, saved.input_normed, saved.attention, scratch);
  norm_middle(scratch.branch, saved);
  mlp_.forward(scratch.branch, saved.middle_normed, saved.mlp, scratch);
}

Block::Activations Block::first_rows(const Activations& saved, std::int64_t rows) {
  return {.input = saved.input.rows(0, rows),
          .middle = saved.middle.rows(0, rows),
          .input_normed = saved.input_normed.rows(0, rows),
          .middle_normed = saved.middle_normed.rows(0, rows),
          .input_rstd = saved.input_rstd.rows(0, rows),
          .middle_rstd = saved.middle_rstd.rows(0, rows),
          .attention = AttentionLayer::first_rows(saved.attention, rows),
          .mlp = MlpLayer::first_rows(saved.mlp, rows)};
}

void Block::advance(Tensor x, Tensor branch, const Activations& saved, const Scratch& scratch,
                    const CachedLayer& cache) const {
  const Tensor output = scratch.branch.rows(0, saved.input.extent(0));
  norm_input(x, branch, saved);
  attention_.advance(output, saved.input_normed, saved.attention, cache);
  norm_middle(output, saved);
  mlp_.forward(output, saved.middle_normed, saved.mlp, scratch);
}

void Block::forward_again(const Activations& saved, const Scratch& scratch) const {
  norm_input(saved.input, {}, saved);
  attention_.forward(scratch.branch, saved.input_normed, saved.attention, scratch);
  norm_middle(scratch.branch, saved);
  mlp_.forward_hidden(saved.middle_normed, saved.mlp, scratch);
}

void Block::backward(const Activations& saved, const Scratch& scratch, Recompute lost) const {
  Backend& backend = tensor_.backend();
  if (lost == Recompute::block) forward_again(saved, scratch);
  if (lost == Recompute::cheap) {
    norm_input(saved.input, {}, saved);
    norm_middle({}, saved);
    mlp_.forward_activation(saved.mlp);
  }
  const Tensor residual = scratch.residual_gradient;
  mlp_.backward(scratch.branch, residual, saved.middle_normed, saved.mlp, scratch);
  backend.run(RmsnormBackward{.dx = residual,
                              .dgain = parameters_.gradient(middle_gain_),
                              .dy = scratch.branch,
                              .x = saved.middle,
                              .gain = parameters_.operand(middle_gain_),
                              .rstd = saved.middle_rstd,
                              .accumulate_dx = Accumulate::yes});
  attention_.backward(scratch.branch, residual, saved.input_normed, saved.attention, scratch);
  backend.run(RmsnormBackward{.dx = residual,
                              .dgain = parameters_.gradient(input_gain_),
                              .dy = scratch.branch,
                              .x = saved.input,
                              .gain = parameters_.operand(input_gain_),
                              .rstd = saved.input_rstd,
                              .accumulate_dx = Accumulate::yes});
}

}  // namespace vqlm
