#include "core/model/mlp_layer.h"

namespace vqlm {

MlpLayer::MlpLayer(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
                   ParameterStore& parameters, int bucket, const std::string& prefix)
    : tensor_(tensor),
      parameters_(parameters),
      rows_(batch.rows()),
      width_(config.d_ff / tensor.size()),
      activation_(config.activation) {
  const Parameter half{.name = {},
                       .global_shape = {config.d_ff, config.d_model},
                       .offset = {width_ * tensor.rank(), 0},
                       .shape = {width_, config.d_model},
                       .init = {.stddev = 0.02f},
                       .role = ParameterRole::block,
                       .hidden_matrix = true,
                       .gradient_start = GradientStart::product};
  Parameter gate = half;
  Parameter up = half;
  gate.name = prefix + "gate_proj.weight";
  up.name = prefix + "up_proj.weight";
  gate_up_ = parameters.add(bucket, {gate, up});
  down_ = parameters.add(bucket, {{.name = prefix + "down_proj.weight",
                                   .global_shape = {config.d_model, config.d_ff},
                                   .offset = {0, width_ * tensor.rank()},
                                   .shape = {config.d_model, width_},
                                   .init = {.stddev = config.output_stddev()},
                                   .role = ParameterRole::block,
                                   .hidden_matrix = true,
                                   .gradient_start = GradientStart::product}});
}

void MlpLayer::place_gate_up(TensorArena& arena, Activations& saved) const {
  arena.add(saved.gate_up, {rows_, 2 * width_}, tensor_.backend().activation_dtype());
}

void MlpLayer::place_hidden(TensorArena& arena, Activations& saved) const {
  arena.add(saved.hidden, {rows_, width_}, tensor_.backend().activation_dtype());
}

void MlpLayer::forward_activation(const Activations& saved) const {
  if (activation_ == Activation::swiglu) {
    tensor_.backend().run(SwigluForward{.y = saved.hidden, .gate_up = saved.gate_up});
  } else {
    tensor_.backend().run(GegluForward{.y = saved.hidden, .gate_up = saved.gate_up});
  }
}

void MlpLayer::forward_hidden(Tensor x, const Activations& saved, const Scratch& scratch) const {
  const Tensor rows = tensor_.gather(x, scratch.gathered);  // (N, d)
  tensor_.backend().run(Matmul{.c = saved.gate_up,
                               .a = rows,
                               .b = parameters_.fused_operand(gate_up_, 2),
                               .tb = Transpose::yes,
                               .accumulate = Accumulate::no});
  forward_activation(saved);
}

void MlpLayer::forward(Tensor y, Tensor x, const Activations& saved, const Scratch& scratch) const {
  forward_hidden(x, saved, scratch);
  const Tensor partial = tensor_.size() == 1 ? y : scratch.partial;  // (N, d)
  tensor_.backend().run(Matmul{.c = partial,
                               .a = saved.hidden,
                               .b = parameters_.operand(down_),
                               .tb = Transpose::yes,
                               .accumulate = Accumulate::no});
  tensor_.reduce_scatter(y, partial);
}

void MlpLayer::backward(Tensor dx, Tensor dy, Tensor x, const Activations& saved, const Scratch& scratch) const {
  Backend& backend = tensor_.backend();
  const Tensor dy_rows = tensor_.gather(dy, scratch.gathered_gradient);                             // (N, d)
  const Tensor dhidden = scratch.hidden.range(0, saved.hidden.numel()).view(saved.hidden.shape());  // (N, d_ff / P)
  backend.run(Matmul{.c = dhidden, .a = dy_rows, .b = parameters_.operand(down_), .accumulate = Accumulate::no});
  const auto ddown = parameters_.product_gradient(down_);
  backend.run(
      Matmul{.c = ddown.c, .a = dy_rows, .b = saved.hidden, .ta = Transpose::yes, .accumulate = ddown.accumulate});
  const Tensor dgate_up = saved.gate_up;  // in place: forward's values are not needed again
  if (activation_ == Activation::swiglu) {
    backend.run(SwigluBackward{.dgate_up = dgate_up, .dy = dhidden, .gate_up = saved.gate_up});
  } else {
    backend.run(GegluBackward{.dgate_up = dgate_up, .dy = dhidden, .gate_up = saved.gate_up});
  }
  const Tensor rows = tensor_.gather(x, scratch.gathered);
  const auto dweight = parameters_.product_gradient(gate_up_, 2);
  backend.run(Matmul{.c = dweight.c, .a = dgate_up, .b = rows, .ta = Transpose::yes, .accumulate = dweight.accumulate});
  const Tensor partial = tensor_.size() == 1 ? dx : scratch.partial;
  backend.run(
      Matmul{.c = partial, .a = dgate_up, .b = parameters_.fused_operand(gate_up_, 2), .accumulate = Accumulate::no});
  tensor_.reduce_scatter(dx, partial);
}

}  // namespace vqlm
