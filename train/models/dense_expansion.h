// A VQ head as another program, or a run that goes on, can have it: dense, or without input codes.
#pragma once

#include "train/models/replaced_head.h"

namespace vqlm {

/// log sum exp of each cluster's members' biases (V), (K).
std::vector<double> cluster_lse(const CodeMap& map, const std::vector<float>& bias);

/// The VQ head of `trunk` as the dense head with a bias that gives the same probabilities for G = 0, and for members
/// with vectors (G > 0, or rows of the embedding) the same to first order in h. With pi(v) = softmax over the cluster
/// of v's member biases,
///
///   log p(v|h) = a_k - lse_j(a_j) + s_v - lse_{w in k}(s_w),   a_k = h . c_k + beta_k,   s_v = h . u_v + b_v
///
/// and lse_j(a_j) shifts all tokens alike, so the dense logits are z_v = a_k + s_v - lse_{w in k}(s_w). For G = 0 there
/// is no u, and lse_{w in k}(b_w) is a constant: w_v = c_k, bias_v = beta_k + b_v - lse_{w in k}(b_w), exactly. For G >
/// 0 the last term is convex in h; its tangent at h = 0 has the value lse_{w in k}(b_w) and the gradient m_k = sum_{w
/// in k} pi(w) u_w, so
///
///   w_v = c_k + u_v - m_k,   bias_v = beta_k + b_v - lse_{w in k}(b_w).
///
/// With head.member_mean c_k is the code plus the mean of the cluster's members' u, everywhere above.
///
/// What is dropped is at least 1/2 Var_pi(h . u_w) for small h: a cluster's tokens gain that many nats before the
/// softmax.
class DenseExpansion : public ReplacedHead {
 public:
  /// `trunk` must have a VQ head.
  explicit DenseExpansion(const ModelSource& trunk);

  std::optional<CodeMap> code_map() const override { return std::nullopt; }
  /// True where members have no vectors.
  bool exact() const { return map_.groups == 0 && member_vectors_.empty(); }

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override;
  /// Row v of the matrix.
  void row(std::int64_t token, float* out) const;
  void add_member(std::int64_t token, float scale, float* out) const;

  CodeMap map_;
  std::vector<float> codebook_;         // (K, d), for G > 0 less m_k
  std::vector<float> member_codebook_;  // (G, Q, d / G)
  std::vector<float> member_vectors_;   // (V, d), where members are rows of the embedding: scale B u
  std::vector<float> bias_;             // (V), of the dense head
};

/// The same model, to rounding, without input codes (core/model/head/input_codes.h): the table's rows are e_v +
/// d_{k(v)}. Members that are rows of the embedding then all of a cluster have scale d_k more, which cancels among
/// them; where their mean is added to the code c_k (head.member_mean), c_k - scale d_k takes its place.
class FoldedInputCodes : public ReplacedHead {
 public:
  /// `trunk` must have input codes.
  explicit FoldedInputCodes(const ModelSource& trunk);

  std::string description() const override { return trunk().description() + ", input codes folded in"; }
  std::optional<CodeMap> code_map() const override { return map_; }
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override;

 private:
  std::vector<float> read_head(const std::string& name, const Shape& offset, const Shape& extent) const override;

  CodeMap map_;
  std::vector<float> input_codebook_;  // (K, d)
};

}  // namespace vqlm
