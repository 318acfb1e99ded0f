// Causal self-attention with rotary positions and grouped queries: fused q, k, v projection [and biases], [RMSNorm of queries
// and keys,] attention, output projection. Heads are split over the tensor group.
#pragma once

#include <optional>

#include "core/model/kv_cache.h"
#include "core/model/qk_norm.h"
#include "core/model/scratch.h"
#include "core/parameters.h"
#include "core/tensor_arena.h"

namespace vqlm {

/// The store's buckets of a layer: of the projections, and of the norm gains and biases, which every tensor rank holds whole.
struct LayerBuckets {
  int layer;
  int replicated;
};

class AttentionLayer {
 public:
  /// What backward needs of forward, on this rank.
  struct Activations {
    Tensor qkv;        // (N, row) A, rotated
    Tensor out;        // (N, heads / P * head_dim) A
    Tensor lse;        // (B, heads / P, T) f32
    Tensor projected;  // (N, row) A, with model.qk_norm: what it normalised
    Tensor squares;    // (N, QkNormLayer::groups()) f32, with model.qk_norm
  };

  /// rope_frequencies (head_dim / 2) f64 on the device must live as long as the layer. layer: its number, which says whether
  /// it rotates and how far back it sees.
  AttentionLayer(const TensorParallel& tensor, const ModelConfig& config, const BatchShape& batch,
                 ParameterStore& parameters, const LayerBuckets& buckets, Tensor rope_frequencies, int layer,
                 const std::string& prefix);

  /// Weights of the projections, over all ranks.
  std::int64_t weights() const { return parameters_.global_count(qkv_, 3) + parameters_.global_count(output_, 1); }
  /// As many rows, cut into other sequences, from the next forward() on. Not between a forward() and its backward().
  void reshape(const BatchShape& batch);
  void place_activations(TensorArena& arena, Activations& saved) const;
  /// Views of the first `rows` rows, for advance().
  static Activations first_rows(const Activations& saved, std::int64_t rows);

  /// y (n, d) overwritten, from x (n, d), the normalised residual stream.
  void forward(Tensor y, Tensor x, const Activations& saved, const Scratch& scratch) const;
  /// The same for B sequences' next tokens: x (B T, d), T as many as there are rows for; saved by first_rows(). Their keys
  /// and values join the cache. One tensor rank only.
  void advance(Tensor y, Tensor x, const Activations& saved, const CachedLayer& cache) const;
  /// dx (n, d) overwritten from dy (n, d); weight gradients accumulate. dx must not be dy.
  void backward(Tensor dx, Tensor dy, Tensor x, const Activations& saved, const Scratch& scratch) const;

 private:
  /// q, k and v of x (N, d), with bias and norm, before the rotation: into saved.qkv.
  void project(Tensor x, const Activations& saved, const AttentionShape& shape) const;
  /// Calls run(parameter, its first column of this rank's qkv, its first element of the whole, elements) for the biases.
  template <class Run>
  void for_biases(const Run& run) const;

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  std::int64_t d_model_;
  Tensor rope_frequencies_;          // absent: no rotation
  AttentionShape shape_;             // this rank's heads
  ParameterId qkv_;                  // q, k and v projections, fused
  std::optional<ParameterId> bias_;  // of q; those of k and v follow
  std::optional<QkNormLayer> norm_;
  ParameterId output_;
};

}  // namespace vqlm
