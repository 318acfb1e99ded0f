// The members of a VQ head's clusters scored with the rows of the input embedding, which a model has anyway: no parameter of
// the vocabulary's size is the head's own.
//   s_w = h . u_w + b_w,   u_w = E[w]
// With head.member_mean a cluster's logit is h . (c_k + mean of u_w over its members) + beta_k: what a dense head that shares
// the embedding gives a cluster near h = 0, and c_k what that is wrong by.
#pragma once

#include "core/model/head/output_head.h"

namespace vqlm {

class EmbeddingMembers {
 public:
  /// `members` (V) i32: the tokens in member order. The table is context.embedding, sharded over its columns.
  EmbeddingMembers(const HeadContext& context, Tensor members);

  /// u (V, d) A in member order. Collective over the tensor group. Made anew in each call of a model that is trained, and
  /// once in one that is not: its parameters may not change after the first call.
  Tensor vectors();
  /// Whether clusters are scored by their code plus the mean of their members' vectors (head.member_mean).
  bool adds_means() const { return adds_means_; }
  /// Then codebook (K, d) A, padded (Backend::class_multiple), + the means of the vectors that vectors() made last; padded
  /// alike, valid until the next call. Made anew in each call of a model that is trained, and once in one that is not.
  Tensor cluster_vectors(Tensor codebook, const CodeMapView& map);

  /// For backward: zeros (V, d) f32, to which the gradient of vectors() is added.
  Tensor clear_gradient();
  /// With means: where the caller puts the gradient of cluster_vectors(), (K, d) f32, padded. add_cluster_gradient(), between
  /// clear_gradient() and backward(), adds it to dcodebook (K, d) f32 and to the gradient of vectors().
  Tensor cluster_gradient() const { return cluster_gradient_; }
  void add_cluster_gradient(Tensor dcodebook, const CodeMapView& map);
  /// After them: the gradient of E accumulates. Collective over the tensor group.
  void backward();

 private:
  void allocate(bool trainable);
  std::int64_t own_columns() const { return d_model_ / tensor_.size(); }

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  ParameterId table_;
  std::int64_t vocab_size_, d_model_, clusters_;
  bool adds_means_, trainable_;
  bool made_ = false, clusters_made_ = false;
  Tensor members_;  // (V) i32

  Buffer storage_;
  Tensor vectors_;                        // (V, d) A
  Tensor own_, gathered_;                 // (V, d / P) and (P, V, d / P) A, where P > 1
  Tensor cluster_vectors_;                // (K, d) A, padded, with means
  Tensor vectors_gradient_;               // (V, d) f32, training only
  Tensor own_gradient_, gradient_parts_;  // (V, d / P) and (P, V, d / P) f32, training with P > 1
  Tensor cluster_gradient_;               // (K, d) f32, padded, training with means
};

}  // namespace vqlm
