// The gated feed-forward layer: fused gate and up projections, silu(gate) * up or gelu(gate) * up, down projection. d_ff is
// split over the tensor group.
#pragma once

#include "core/model/scratch.h"
#include "core/parameters.h"
#include "core/tensor_arena.h"

namespace vqlm {

class MlpLayer {
 public:
  /// What backward needs of forward, on this rank.
  struct Activations {
    Tensor gate_up;  // (N, 2 d_ff / P) A; backward overwrites it with its gradient
    Tensor hidden;   // (N, d_ff / P) A
  };

  MlpLayer(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch, ParameterStore& parameters,
           int bucket, const std::string& prefix);

  /// Weights of the projections, over all ranks.
  std::int64_t weights() const { return parameters_.global_count(gate_up_, 2) + parameters_.global_count(down_, 1); }
  void place_gate_up(TensorArena& arena, Activations& saved) const;
  void place_hidden(TensorArena& arena, Activations& saved) const;
  /// Views of the first `rows` rows: forward() takes them with as many of x at P = 1.
  static Activations first_rows(const Activations& saved, std::int64_t rows) {
    return {saved.gate_up.rows(0, rows), saved.hidden.rows(0, rows)};
  }

  /// y (n, d) overwritten, from x (n, d), the normalised residual stream.
  void forward(Tensor y, Tensor x, const Activations& saved, const Scratch& scratch) const;
  /// All of it but y, and saved.hidden alone from saved.gate_up: what recomputation makes again.
  void forward_hidden(Tensor x, const Activations& saved, const Scratch& scratch) const;
  void forward_activation(const Activations& saved) const;
  /// dx (n, d) overwritten from dy (n, d); weight gradients accumulate. dx must not be dy.
  void backward(Tensor dx, Tensor dy, Tensor x, const Activations& saved, const Scratch& scratch) const;

 private:
  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  std::int64_t rows_;   // N
  std::int64_t width_;  // d_ff / P
  Activation activation_;
  ParameterId gate_up_;
  ParameterId down_;
};

}  // namespace vqlm
