// The members of a VQ head's clusters scored with the rows of the input embedding, which a model has anyway: no parameter of
// the vocabulary's size is the head's own.
//   s_w = h . u_w + b_w,   u_w = E[w]
// With head.member_mean a cluster's logit is h . (c_k + mean of u_w over its members) + beta_k: what a dense head that shares
// the embedding gives a cluster near h = 0, and c_k what that is wrong by.
//
// Tensor ranks have the table's rows as those of a tied dense head: each has some members of every cluster, and their share
// of its mean, which are summed. No row of the table leaves its rank.
#pragma once

#include <optional>

#include "core/model/head/device_code_map.h"
#include "core/model/head/members.h"

namespace vqlm {

class EmbeddingMembers : public Members {
 public:
  /// The table is context.embedding, cut as the map's members are.
  EmbeddingMembers(const HeadContext& context, const EmbeddingMembersConfig& config, const DeviceCodeMap& map);

  std::int64_t width() const override { return d_model_; }
  /// u (M, d) A in the order of this rank's M members: made once by a model that is not trained, whose parameters may not
  /// change after the first call, and by one that is in each call, but for those that may reuse the step's.
  Tensor vectors(Reuse reuse) override;
  /// With means, where configured: made once for what vectors() made last.
  Tensor cluster_vectors(Tensor codes) override;
  Tensor cluster_gradient() override { return cluster_gradient_; }
  Tensor begin_backward(MicroBatchPlace place) override;
  void end_backward(ParameterId codes, MicroBatchPlace place) override;

 private:
  void allocate(bool trainable);
  /// Codes plus the sum of all ranks' shares of the means.
  void sum_means(Tensor codes);

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  ParameterId table_;
  std::int64_t d_model_, clusters_;
  bool adds_means_, trainable_;
  std::optional<std::int64_t> made_in_;  // the step whose parameters vectors_ are of (ParameterStore::step())
  bool clusters_made_ = false;           // of these vectors_
  const DeviceCodeMap& map_;

  Buffer storage_;
  Tensor vectors_;           // (M, d) A
  Tensor cluster_vectors_;   // (K, d) A, padded, with means
  Tensor means_;             // (K, d) f32, where members have parts
  Tensor vectors_gradient_;  // (M, d) f32, training only; like the next, of a step's micro-batches until the last
  Tensor cluster_gradient_;  // (K, d) f32, padded, training with means
};

}  // namespace vqlm
