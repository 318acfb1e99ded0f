// What a VQ head has learned, carried over from one code map to another so that the loss hardly moves. All in host
// memory. Moments of an optimizer are left behind: a training that starts from a model starts AdamW anew, whose first
// steps divide by 1 - beta^step what old moments would already hold in full.
//
// Notation: k, q the old map, k', q' the other one; L_v = log p(v | h = 0) of the old head; p(v | k) the old
// probability inside a cluster at h = 0; ubar_k = sum over v in k of p(v | k) u_v. The derivative of log p(v | h) by h
// at 0 is, up to a term that all tokens share,
//   w_v = c_{k(v)} + u_v - ubar_{k(v)}.
// The head that is carried over has the same L_v for every token and, so far as its codes can say it, the same w_v.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/head/code_map.h"

namespace vqlm {

/// A VQ head's parameters, codes included.
struct HeadArrays {
  std::int64_t d_model = 0;            // d
  std::vector<float> codebook;         // (K, d)
  std::vector<float> cluster_bias;     // (K)
  std::vector<float> member_codebook;  // (G, Q, d / G), empty where G = 0
  std::vector<float> token_bias;       // (V), empty where head.bias is off

  bool operator==(const HeadArrays&) const = default;
};

/// The old head at h = 0, and its clusters' mean members.
struct HeadAtZero {
  std::vector<double> log_prob;     // (V): L_v
  std::vector<double> in_cluster;   // (V): p(v | k(v))
  std::vector<double> offset;       // (V): b_v - L_v, the same for all tokens of a cluster
  std::vector<double> mean_member;  // (K, d): ubar_k; zeros where G = 0
};
HeadAtZero head_at_zero(const CodeMap& map, const HeadArrays& values);

/// Renames the clusters of `fresh` (V, each in [0, K)) after the old ones that they share most mass with, exp(L_v) of
/// each token: pairs in falling order of the mass they share (ties: the lower old, then the lower fresh one), each
/// cluster once, the rest in order. The same partition gets the old names back, whatever it was called.
std::vector<std::int32_t> named_after(const std::vector<std::int32_t>& old, const std::vector<std::int32_t>& fresh,
                                      std::int64_t clusters, const HeadAtZero& zero);

/// What group g of every token's member vector should be where it is in cluster_of_token (V): (V, d / G),
///   t_v = u_v + (c_j - ubar_j) - (c_k - ubar_k),    j the token's old cluster, k its cluster now,
/// with which w_v is kept exactly; u_v itself where the cluster kept its name. G > 0.
std::vector<double> wanted_members(const CodeMap& old, const HeadArrays& values, const HeadAtZero& zero,
                                   const std::vector<std::int32_t>& cluster_of_token, int group);

struct CarriedHead {
  HeadArrays values;
  std::int64_t moved_tokens = 0;  // whose cluster is another one, not just one by another name
};

/// The head for map `next`, of the same sizes; k is a cluster of `next` by the name that named_after() gives it:
///   b'_v = b_v - s_j + s_k,  s_k = b_v - L_v of any v in old k   (L_v kept exactly; b_v itself where k is j)
///   beta'_k = log of the sum over v in k of exp(L_v), + lse(beta)
///   c'_k = mean of w_v over k's tokens, weighted by exp(L_v)
///   u'_{g,q} = mean of t_v over the tokens with that code, weighted by exp(L_v); tokens alone in a cluster have no say
/// Without token biases L_v is kept for clusters only. A code that no token has keeps what it had.
CarriedHead carry_over(const CodeMap& old, const HeadArrays& values, const CodeMap& next);

}  // namespace vqlm
