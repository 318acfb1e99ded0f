// The RMSNorm of queries and keys between their projection and the rotation, over each head or over the whole width.
#pragma once

#include "core/model_config.h"
#include "core/ops/qk_norm.h"
#include "core/parameters.h"
#include "core/tensor_parallel.h"

namespace vqlm {

/// Over each head, all heads share one gain (head_dim). Over the whole width, gains are as wide, and each rank of a tensor group
/// uses those of its heads; the sums of squares, and in backward of products, take one all-reduce of 2 N numbers each.
class QkNormLayer {
 public:
  /// shape: of this rank's heads. Gains are added to `bucket`, which is replicated over the tensor group.
  QkNormLayer(const TensorParallel& tensor, const ModelConfig& config, const AttentionShape& shape,
              ParameterStore& parameters, int bucket, const std::string& prefix);

  /// S of the sums of squares (N, S) that forward keeps.
  std::int64_t groups() const { return groups_; }
  /// qkv and squares overwritten, from the projection x (N, row); shape says how many rows.
  void forward(Tensor qkv, Tensor x, Tensor squares, const AttentionShape& shape) const;
  /// dqkv (N, row) in place: from the gradient of qkv to that of x; gains' gradients accumulate. dots (N, S) f32: to work in.
  void backward(Tensor dqkv, Tensor x, Tensor squares, Tensor dots, const AttentionShape& shape) const;

 private:
  struct Gains {
    Tensor query, key;
  };
  /// This rank's of the whole gains: their values or gradients.
  Gains mine(Tensor query, Tensor key) const;
  Gains gains() const { return mine(parameters_.operand(query_), parameters_.operand(key_)); }

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  std::int64_t groups_;
  int ranks_;  // that share a root mean square
  float eps_;
  ParameterId query_, key_;
};

}  // namespace vqlm
