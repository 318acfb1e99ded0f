// The members of a VQ head's clusters scored with the rows of the input embedding, which a model has anyway: no parameter of
// the vocabulary's size is the head's own. Of the embedding's d columns every (d / r)-th is used, r in all:
//   s_w = q . u_w + b_w,   u_w = scale * (E[w, 0], E[w, d / r], E[w, 2 d / r], ...),   q = h where r = d, else q = h B
// with B (d, r) the only matrix. With head.member_mean (r = d) a cluster's logit is
//   h . (c_k + mean of u_w over its members) + beta_k:
// what a dense head that shares the embedding gives a cluster near h = 0, and c_k what that is wrong by. The scale makes the
// gradient that E gets from the output larger beside the one from the input, which is scaled by what follows it anyway (a
// norm).
#pragma once

#include <optional>

#include "core/model/head/output_head.h"

namespace vqlm {

class EmbeddingMembers {
 public:
  /// Adds B to the open bucket, where there is one. `members` (V) i32: the tokens in member order. The table is
  /// context.embedding, sharded over its columns; head.member_rank divides d, and the group's size divides it.
  EmbeddingMembers(const HeadContext& context, Tensor members);

  std::int64_t rank() const { return rank_; }
  /// Numbers in B: 0 where r = d.
  std::int64_t matrix_parameters() const { return projection_ ? d_model_ * rank_ : 0; }

  /// u (V, r) A in member order. Collective over the tensor group. Made anew in each call of a model that is trained, and
  /// once in one that is not: its parameters may not change after the first call.
  Tensor vectors();
  /// Whether clusters are scored by their code plus the mean of their members' vectors (head.member_mean; r = d).
  bool adds_means() const { return adds_means_; }
  /// Then codebook (K, d) A, padded (Backend::class_multiple), + the means of the vectors that vectors() made last; padded
  /// alike, valid until the next call. Made anew in each call of a model that is trained, and once in one that is not.
  Tensor cluster_vectors(Tensor codebook, const CodeMapView& map);
  /// q (n, r) A of h (n, d), valid until the next call.
  Tensor query(Tensor h);

  /// For backward: zeros (V, r) f32, to which the gradient of vectors() is added, and q's gradient (n, r) A, zeros, or dh
  /// itself where q is h.
  Tensor clear_gradient();
  Tensor clear_query_gradient(Tensor dh);
  /// With means: where the caller puts the gradient of cluster_vectors(), (K, d) f32, padded. add_cluster_gradient(), between
  /// clear_gradient() and backward(), adds it to dcodebook (K, d) f32 and to the gradient of vectors().
  Tensor cluster_gradient() const { return cluster_gradient_; }
  void add_cluster_gradient(Tensor dcodebook, const CodeMapView& map);
  /// After them: the gradients of E and B accumulate, and dh (n, d). Collective over the tensor group.
  void backward(Tensor dh, Tensor h);

 private:
  void allocate(bool trainable, std::int64_t rows);
  std::int64_t stride() const { return d_model_ / rank_; }
  std::int64_t own_columns() const { return rank_ / tensor_.size(); }

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  ParameterId table_;
  std::int64_t vocab_size_, d_model_, rank_, clusters_;
  float scale_;
  bool adds_means_, trainable_;
  bool made_ = false, clusters_made_ = false;
  std::optional<ParameterId> projection_;  // B (d, r)
  Tensor members_;                         // (V) i32

  Buffer storage_;
  Tensor vectors_;                        // (V, r) A
  Tensor own_, gathered_;                 // (V, r / P) and (P, V, r / P) A, where P > 1
  Tensor query_;                          // (n, r) A, where there is a B
  Tensor cluster_vectors_;                // (K, d) A, padded, with means
  Tensor vectors_gradient_;               // (V, r) f32, training only
  Tensor own_gradient_, gradient_parts_;  // (V, r / P) and (P, V, r / P) f32, training with P > 1
  Tensor query_gradient_;                 // (n, r) A, training, where there is a B
  Tensor cluster_gradient_;               // (K, d) f32, padded, training with means
};

}  // namespace vqlm
