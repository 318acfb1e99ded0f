// The members of a VQ head's clusters scored with the rows of the input embedding, which a model has anyway: no parameter of
// the vocabulary's size is the head's own.
//   s_w = h . u_w + b_w,   u_w = E[w]
// With head.member_mean a cluster's logit is h . (c_k + mean of u_w over its members) + beta_k: what a dense head that shares
// the embedding gives a cluster near h = 0, and c_k what that is wrong by.
#pragma once

#include "core/model/head/members.h"

namespace vqlm {

class EmbeddingMembers : public Members {
 public:
  /// The table is context.embedding, sharded over its columns.
  EmbeddingMembers(const HeadContext& context, const EmbeddingMembersConfig& config, const CodeMapView& map);

  std::int64_t width() const override { return d_model_; }
  /// u (V, d) A in member order, made anew in each call of a model that is trained, and once in one that is not: its
  /// parameters may not change after the first call. Of cluster_vectors(), which adds means where configured, likewise.
  Tensor vectors() override;
  Tensor cluster_vectors(Tensor codes) override;
  Tensor cluster_gradient() override { return cluster_gradient_; }
  Tensor begin_backward() override;
  void end_backward(ParameterId codes) override;

 private:
  void allocate(bool trainable);
  /// The gradient of E accumulates from vectors_gradient_.
  void scatter_gradient();
  std::int64_t own_columns() const { return d_model_ / tensor_.size(); }

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  ParameterId table_;
  std::int64_t vocab_size_, d_model_, clusters_;
  bool adds_means_, trainable_;
  bool made_ = false, clusters_made_ = false;
  const CodeMapView& map_;

  Buffer storage_;
  Tensor vectors_;                        // (V, d) A
  Tensor own_, gathered_;                 // (V, d / P) and (P, V, d / P) A, where P > 1
  Tensor cluster_vectors_;                // (K, d) A, padded, with means
  Tensor vectors_gradient_;               // (V, d) f32, training only
  Tensor own_gradient_, gradient_parts_;  // (V, d / P) and (P, V, d / P) f32, training with P > 1
  Tensor cluster_gradient_;               // (K, d) f32, padded, training with means
};

}  // namespace vqlm
