#include "core/model/block.h"

#include <initializer_list>
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
             ParameterStore& parameters, const LayerBuckets& buckets, Tensor rope_frequencies, int layer)
    : tensor_(tensor),
      parameters_(parameters),
      d_model_(config.d_model),
      rows_(batch.rows() / tensor.size()),
      norm_eps_(config.norm_eps),
      before_(config.norm_placement != NormPlacement::post),
      after_(config.norm_placement != NormPlacement::pre),
      input_gain_(gain(before_, prefix_of(layer) + "input_layernorm", buckets)),
      attention_(tensor, config, batch, parameters, buckets, rope_frequencies, layer, prefix_of(layer) + "self_attn."),
      attention_out_gain_(gain(after_, prefix_of(layer) + "post_attention_layernorm", buckets)),
      middle_gain_(gain(before_, prefix_of(layer) + (after_ ? "pre_feedforward_layernorm" : "post_attention_layernorm"),
                        buckets)),
      mlp_(tensor, config, batch, parameters, buckets.layer, prefix_of(layer) + "mlp."),
      mlp_out_gain_(gain(after_, prefix_of(layer) + "post_feedforward_layernorm", buckets)) {}

ParameterId Block::gain(bool present, const std::string& name, const LayerBuckets& buckets) {
  return present ? parameters_.add(buckets.replicated, {norm_gain(name + ".weight", d_model_)}) : no_gain;
}

void Block::place_activations(TensorArena& arena, Activations& saved, const ActivationGroups& groups) const {
  const DType a = tensor_.backend().activation_dtype();
  const auto place_streams = [&](std::initializer_list<Tensor*> streams) {
    for (Tensor* stream : streams) arena.add(*stream, {rows_, d_model_}, a);
  };
  const auto place_rows = [&](std::initializer_list<Tensor*> rows) {
    for (Tensor* row : rows) arena.add(*row, {rows_}, DType::f32);
  };
  if (groups.input) place_streams({&saved.input});
  if (groups.costly) {
    place_streams({&saved.middle});
    if (before_) place_rows({&saved.input_rstd, &saved.middle_rstd});
    if (after_) {
      place_streams({&saved.attention_out, &saved.mlp_out});
      place_rows({&saved.attention_out_rstd, &saved.mlp_out_rstd});
    }
    attention_.place_activations(arena, saved.attention);
    mlp_.place_gate_up(arena, saved.mlp);
  }
  if (groups.cheap) {
    if (before_) place_streams({&saved.input_normed, &saved.middle_normed});
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

Tensor Block::enter(ParameterId gain, Tensor stream, Tensor normed, Tensor rstd, Tensor x, Tensor branch) const {
  if (gain == no_gain) {
    if (branch) tensor_.backend().run(Add{.out = stream, .a = x, .b = branch});
    return stream;
  }
  tensor_.backend().run(RmsnormForward{.y = normed,
                                       .rstd = rstd,
                                       .sum = branch ? stream : Tensor{},
                                       .x = x,
                                       .branch = branch,
                                       .gain = parameters_.operand(gain),
                                       .eps = norm_eps_});
  return normed;
}

void Block::leave(ParameterId gain, Tensor branch, Tensor out, Tensor rstd) const {
  if (gain == no_gain) return;
  tensor_.backend().run(
      RmsnormForward{.y = branch, .rstd = rstd, .x = out, .gain = parameters_.operand(gain), .eps = norm_eps_});
}

Tensor Block::enter_input(Tensor x, Tensor branch, const Activations& saved) const {
  return enter(input_gain_, saved.input, saved.input_normed, saved.input_rstd, x, branch);
}

Tensor Block::enter_middle(Tensor x, Tensor branch, const Activations& saved) const {
  return enter(middle_gain_, saved.middle, saved.middle_normed, saved.middle_rstd, x, branch);
}

Tensor Block::attend(Tensor attention_in, const Activations& saved, const Scratch& scratch) const {
  const Tensor attention_out = after_ ? saved.attention_out : scratch.branch;
  attention_.forward(attention_out, attention_in, saved.attention, scratch);
  leave(attention_out_gain_, scratch.branch, attention_out, saved.attention_out_rstd);
  return enter_middle(saved.input, scratch.branch, saved);
}

void Block::forward(Tensor x, Tensor branch, const Activations& saved, const Scratch& scratch) const {
  VQLM_ASSERT(branch || x.data() == saved.input.data());
  const Tensor mlp_in = attend(enter_input(x, branch, saved), saved, scratch);
  const Tensor mlp_out = after_ ? saved.mlp_out : scratch.branch;
  mlp_.forward(mlp_out, mlp_in, saved.mlp, scratch);
  leave(mlp_out_gain_, scratch.branch, mlp_out, saved.mlp_out_rstd);
}

Block::Activations Block::first_rows(const Activations& saved, std::int64_t rows) {
  const auto first = [rows](const Tensor& x) { return x ? x.rows(0, rows) : Tensor{}; };
  return {.input = first(saved.input),
          .middle = first(saved.middle),
          .input_normed = first(saved.input_normed),
          .middle_normed = first(saved.middle_normed),
          .input_rstd = first(saved.input_rstd),
          .middle_rstd = first(saved.middle_rstd),
          .attention_out = first(saved.attention_out),
          .mlp_out = first(saved.mlp_out),
          .attention_out_rstd = first(saved.attention_out_rstd),
          .mlp_out_rstd = first(saved.mlp_out_rstd),
          .attention = AttentionLayer::first_rows(saved.attention, rows),
          .mlp = MlpLayer::first_rows(saved.mlp, rows)};
}

void Block::advance(Tensor x, Tensor branch, const Activations& saved, const Scratch& scratch,
                    const CachedLayer& cache) const {
  const Tensor output = scratch.branch.rows(0, saved.input.extent(0));
  const Tensor attention_in = enter_input(x, branch, saved);
  const Tensor attention_out = after_ ? saved.attention_out : output;
  attention_.advance(attention_out, attention_in, saved.attention, cache);
  leave(attention_out_gain_, output, attention_out, saved.attention_out_rstd);
  const Tensor mlp_in = enter_middle(saved.input, output, saved);
  const Tensor mlp_out = after_ ? saved.mlp_out : output;
  mlp_.forward(mlp_out, mlp_in, saved.mlp, scratch);
  leave(mlp_out_gain_, output, mlp_out, saved.mlp_out_rstd);
}

void Block::enter_backward(ParameterId gain, Tensor residual, Tensor stream, Tensor rstd, Tensor branch) const {
  if (gain == no_gain) {
    tensor_.backend().run(Add{.out = residual, .a = residual, .b = branch});
    return;
  }
  tensor_.backend().run(RmsnormBackward{.dx = residual,
                                        .dgain = parameters_.gradient(gain),
                                        .dy = branch,
                                        .x = stream,
                                        .gain = parameters_.operand(gain),
                                        .rstd = rstd,
                                        .accumulate_dx = Accumulate::yes});
}

Tensor Block::leave_backward(ParameterId gain, Tensor residual, Tensor out, Tensor rstd) const {
  if (gain == no_gain) return residual;
  tensor_.backend().run(RmsnormBackward{.dx = out,
                                        .dgain = parameters_.gradient(gain),
                                        .dy = residual,
                                        .x = out,
                                        .gain = parameters_.operand(gain),
                                        .rstd = rstd,
                                        .accumulate_dx = Accumulate::no});
  return out;
}

void Block::forward_again(const Activations& saved, const Scratch& scratch) const {
  const Tensor mlp_in = attend(enter_input(saved.input, {}, saved), saved, scratch);
  if (!after_) {
    mlp_.forward_hidden(mlp_in, saved.mlp, scratch);
    return;
  }
  mlp_.forward(saved.mlp_out, mlp_in, saved.mlp, scratch);
  leave(mlp_out_gain_, scratch.branch, saved.mlp_out, saved.mlp_out_rstd);
}

void Block::backward(const Activations& saved, const Scratch& scratch, Recompute lost) const {
  if (lost == Recompute::block) forward_again(saved, scratch);
  if (lost == Recompute::cheap) {
    enter_input(saved.input, {}, saved);
    enter_middle(saved.middle, {}, saved);
    mlp_.forward_activation(saved.mlp);
  }
  const Tensor residual = scratch.residual_gradient;
  const Tensor dmlp = leave_backward(mlp_out_gain_, residual, saved.mlp_out, saved.mlp_out_rstd);
  mlp_.backward(scratch.branch, dmlp, before_ ? saved.middle_normed : saved.middle, saved.mlp, scratch);
  enter_backward(middle_gain_, residual, saved.middle, saved.middle_rstd, scratch.branch);
  const Tensor dattention =
      leave_backward(attention_out_gain_, residual, saved.attention_out, saved.attention_out_rstd);
  attention_.backward(scratch.branch, dattention, before_ ? saved.input_normed : saved.input, saved.attention, scratch);
  enter_backward(input_gain_, residual, saved.input, saved.input_rstd, scratch.branch);
}

}  // namespace vqlm
