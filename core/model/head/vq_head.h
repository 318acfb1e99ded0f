// VqHead: no vocabulary matrix. K codes give the cluster's probability, and inside the target's cluster every
// token has a vector put together from a shared member codebook (G = 0, the published VQ-Logits method: only
// a bias):
//   a_j = h . c_j + beta_j
//   s_v = sum_g h_g . u_{g, q_g(v)} + b_v
//   p(v|h) = softmax_j(a)_{k(v)} * softmax_{w in cluster k(v)}(s)_v
// u may be rows of the input embedding instead, whose means are then added to the codes (embedding_members.h).
// The parameters are replicated over the whole grid; every rank works on its own n rows without any collective, but for
// members that are the embedding's rows, which tensor ranks share (member_softmax.h).
#pragma once

#include <memory>
#include <optional>

#include "core/model/head/code_averages.h"
#include "core/model/head/device_code_map.h"
#include "core/model/head/input_codes.h"
#include "core/model/head/member_softmax.h"
#include "core/model/head/members.h"
#include "core/model/head/output_head.h"
#include "core/model/head/vq_head_choice.h"

namespace vqlm {

class VqHead : public OutputHead {
 public:
  /// The map must have the configuration's V, K, G and Q. Adds its parameters (all replicated) to the open
  /// bucket.
  VqHead(const HeadContext& context, const VqHeadConfig& config, const CodeMap& map);

  HeadCost cost() const override;
  void initialize(const std::vector<std::int64_t>& counts) override;
  void start_averages(const std::vector<std::int64_t>& counts) override;
  void after_update() override;
  Tensor input_branch(Tensor tokens) override;
  void input_backward(Tensor dx) override;
  void forward(Tensor nll, Tensor h, Tensor targets) override;
  Tensor cluster_nll() const override { return cluster_nll_; }
  void begin_backward(MicroBatchPlace place) override;
  void rows_forward_backward(Tensor nll, Tensor penalty, Tensor dh, Tensor h, Tensor targets, float scale) override;
  void end_backward(MicroBatchPlace place) override;
  void log_probs(Tensor out, Tensor h) override;
  /// Both look at the K codes and at the members of a few clusters (core/model/head/cluster_search.h).
  std::vector<TokenLogProb> most_probable(Tensor h, std::int64_t count, double mass) override;
  std::int32_t sample(Tensor h, float temperature, const std::function<double()>& uniform) override;
  /// Clusters whose members the last most_probable() or sample() asked for; 0 before the first.
  std::int64_t clusters_visited() const { return choice_ ? choice_->search.visited() : 0; }

 private:
  void add_parameters(const HeadContext& context, const VqHeadConfig& config);
  /// (K): the clusters' shares of the tokens, from log_unigram's (V).
  std::vector<double> cluster_mass(const std::vector<float>& unigram) const;
  void allocate_workspace();
  /// Made at generation's first token.
  VqHeadChoice& choice();
  /// log p(k) of h (1, d) in host memory.
  std::span<const float> host_code_log_probs(Tensor h);
  ClusterSearch::MemberRows member_rows(Tensor h, std::span<const std::int32_t> clusters);
  /// Columns of the clusters' logits: K, padded for the back end. What makes them has as many rows, the padding's zeros.
  std::int64_t logit_width() const { return tensor_.backend().padded_classes(clusters_); }
  /// Logits, statistics and nll of the clusters, whose padded vectors are given; sorts the rows by cluster.
  void codes_forward(Tensor nll, Tensor h, Tensor targets, Tensor clusters);
  /// After it, the gradients of vectors and biases, between begin_backward() and end_backward(); dh is overwritten.
  void codes_backward(Tensor dh, Tensor h, Tensor clusters, float scale);
  /// What clusters are scored with, after members_->vectors(...); padded.
  Tensor cluster_vectors() { return members_->cluster_vectors(parameters_.padded_operand(codebook_)); }
  Tensor token_bias() const { return token_bias_ ? parameters_.operand(*token_bias_) : fixed_bias_; }

  const TensorParallel& tensor_;
  ParameterStore& parameters_;
  std::int64_t vocab_size_, d_model_, rows_;
  std::int64_t clusters_;
  std::int64_t step_tokens_;
  float commitment_;  // beta

  ParameterId codebook_;                   // (K, d), padded
  ParameterId cluster_bias_;               // (K)
  std::optional<CodeAverages> averages_;   // training with learning ema
  std::optional<ParameterId> token_bias_;  // (V); none where head.bias is off
  Buffer fixed_storage_;
  Tensor fixed_bias_,
      unused_gradient_;  // (V) each, zeros and a place to drop its gradient, where head.bias is off

  DeviceCodeMap map_;
  MemberSoftmax member_softmax_;
  std::unique_ptr<Members> members_;
  /// From begin_backward() to end_backward(): what members and clusters are scored with, where members' gradients go, and
  /// whether that of the clusters' vectors has been written in this step.
  struct Pass {
    Tensor vectors, clusters, member_gradient;
    bool began_clusters = false;
  } pass_;
  std::optional<InputCodes> input_codes_;  // where clusters have vectors at the input, too
  Buffer storage_;
  Tensor logits_;            // (n, K) A, padded
  Tensor code_log_probs_;    // (n, K) f32
  Tensor statistics_;        // (n, 3)
  Tensor lse_;               // (n)
  Tensor cluster_nll_;       // (n), of the last forward()
  Tensor clusters_of_rows_;  // (n) i32, of the last targets
  std::optional<VqHeadChoice> choice_;
};

}  // namespace vqlm
