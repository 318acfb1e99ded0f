// A transformer block, with RMSNorm before its branches, after them, or both (model.norm_placement). The residual stream
// travels as a pair (x, branch): x + branch is formed inside the next normalisation, which saves one pass over memory.
//
// Recomputation (Chen et al., arXiv 1604.06174; by the cost of each array: Korthikanti et al., arXiv 2205.05198): arrays
// that backward can make again need not be kept for every layer. Those lie in one set for all layers; backward() makes them
// from what the layer kept, by the same ops, so that losses and gradients are the same bits.
#pragma once

#include "core/model/attention_layer.h"
#include "core/model/mlp_layer.h"

namespace vqlm {

class Block {
 public:
  /// What backward needs of forward; rows n = N / P.
  struct Activations {
    Tensor input;   // (n, d) A: the residual stream entering the block
    Tensor middle;  // (n, d) A: after attention
    // Where the stream is normalised:
    Tensor input_normed, middle_normed;  // (n, d) A
    Tensor input_rstd, middle_rstd;      // (n) f32
    // Where branches are normalised; backward overwrites the outputs with their gradients.
    Tensor attention_out, mlp_out;            // (n, d) A
    Tensor attention_out_rstd, mlp_out_rstd;  // (n) f32
    AttentionLayer::Activations attention;
    MlpLayer::Activations mlp;
  };

  /// Groups of activations, by what it takes to make them again.
  struct ActivationGroups {
    bool input = true;   // nothing else gives it
    bool costly = true;  // products and attention
    bool cheap = true;   // norms and SwiGLU: one pass over memory

    /// Those that each layer keeps, and those that all layers share.
    static ActivationGroups kept(Recompute recompute) {
      return {true, recompute != Recompute::block, recompute == Recompute::none};
    }
    static ActivationGroups shared(Recompute recompute) {
      const ActivationGroups own = kept(recompute);
      return {!own.input, !own.costly, !own.cheap};
    }
  };

  /// rope_frequencies: as AttentionLayer's.
  Block(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch, ParameterStore& parameters,
        const LayerBuckets& buckets, Tensor rope_frequencies, int layer);

  /// Weights that a token is multiplied with, over all ranks.
  std::int64_t weights() const { return attention_.weights() + mlp_.weights(); }
  /// As many rows, cut into other sequences, from the next forward() on.
  void reshape(const BatchShape& batch) { attention_.reshape(batch); }
  void place_activations(TensorArena& arena, Activations& saved, const ActivationGroups& groups) const;
  /// Gives a layer's set the shared set's arrays for those that it does not keep.
  static void share(Activations& saved, const Activations& shared, Recompute recompute);
  /// Views of the first `rows` rows, for advance().
  static Activations first_rows(const Activations& saved, std::int64_t rows);

  /// The stream x (n, d) [+ branch (n, d)] goes in, (saved.middle, scratch.branch) comes out. `branch`
  /// absent: x is saved.input itself; else it may be scratch.branch.
  void forward(Tensor x, Tensor branch, const Activations& saved, const Scratch& scratch) const;
  /// The same for B sequences' next tokens, as many rows as saved by first_rows() has; scratch.branch's first rows come
  /// out. One tensor rank only.
  void advance(Tensor x, Tensor branch, const Activations& saved, const Scratch& scratch,
               const CachedLayer& cache) const;
  /// scratch.residual_gradient: from the gradient of the block's output to that of its input. `lost`: which activations
  /// another layer has overwritten since forward().
  void backward(const Activations& saved, const Scratch& scratch, Recompute lost) const;

 private:
  static constexpr ParameterId no_gain = -1;
  ParameterId gain(bool present, const std::string& name, const LayerBuckets& buckets);

  /// What a branch reads: the residual stream x [+ branch, kept as `stream`], normalised where there is a gain.
  Tensor enter(ParameterId gain, Tensor stream, Tensor normed, Tensor rstd, Tensor x, Tensor branch) const;
  /// The same before attention and before the MLP.
  Tensor enter_input(Tensor x, Tensor branch, const Activations& saved) const;
  Tensor enter_middle(Tensor x, Tensor branch, const Activations& saved) const;
  /// From what attention reads to what the MLP reads.
  Tensor attend(Tensor attention_in, const Activations& saved, const Scratch& scratch) const;
  /// Makes all activations from the input again.
  void forward_again(const Activations& saved, const Scratch& scratch) const;
  /// branch overwritten with the norm of a branch's output, where there is a gain; else the output is the branch.
  void leave(ParameterId gain, Tensor branch, Tensor out, Tensor rstd) const;
  /// residual += the gradient of enter()'s stream, from `branch`, that of what the branch read.
  void enter_backward(ParameterId gain, Tensor residual, Tensor stream, Tensor rstd, Tensor branch) const;
  /// The gradient of a branch's output from that of the stream that it was added to; it may lie in `out`.
  Tensor leave_backward(ParameterId gain, Tensor residual, Tensor out, Tensor rstd) const;

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  std::int64_t d_model_;
  std::int64_t rows_;  // n
  float norm_eps_;
  bool before_, after_;  // where norms are
  // Made in this order, which is that of the parameters' ids.
  ParameterId input_gain_;
  AttentionLayer attention_;
  ParameterId attention_out_gain_, middle_gain_;
  MlpLayer mlp_;
  ParameterId mlp_out_gain_;
};

/// An RMSNorm gain (d), whole on every rank, starting at one.
Parameter norm_gain(const std::string& name, std::int64_t d_model);

}  // namespace vqlm
