// A VQ head fitted to a trained dense one: clusters and codes of the matrix' rows, and codebooks and biases that give nearly
// the same probabilities.
//
// The dense logits are z_v = h . w_v + b_v. A cluster's logit should be a_k = lse_{v in k}(z_v), and inside a cluster only
// the differences of s_v count. Expanded at the hidden state o (the mean one where it is known, else 0), with
// z0_v = o . w_v + b_v and pi(v) = softmax of z0 over v's cluster,
//
//   lse_{v in k}(z_v) ~ lse_{v in k}(z0_v) + (h - o) . sum_{v in k} pi(v) w_v
//
// so c_k = sum_{v in k} pi(v) w_v and beta_k = lse_{v in k}(z0_v) - o . c_k. The members' vectors u_v are product codes
// (map_fit.h) of w_v less its cluster's mean, in least squares, and b'_v = b_v + o . (w_v - u_v) makes the differences inside
// a cluster exact at h = o. Members that are rows of the embedding are w_v itself where the matrix is tied to it: inside a
// cluster nothing is lost then, and since clusters are scored by code plus mean, the code is c_k less its members' mean.
//
// Where the hidden states of a text are known, this first order is where c and beta begin: they are then fitted to the clusters'
// exact probabilities on that text (cluster_fit.h), and the member codes to the logits that they make there (member_fit.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/backend.h"
#include "train/models/replaced_head.h"
#include "train/tools/convert/cluster_fit.h"

namespace vqlm {

struct VqFitOptions {
  MemberVectors members = MemberVectors::codes;  // or embedding, of a tied matrix only: then no groups and codes
  std::int64_t clusters = 0;                     // K; 0: vq_sizes()
  int groups = -1;                               // G; -1: vq_sizes(); 0: no member codes
  int codes = 0;                                 // Q; 0: vq_sizes()
  std::uint64_t seed = 0;
};

/// Fills in what is not given: K + Q about 1 % of V (powers of two; V = 50,257: 256 each), groups of 8 dimensions or more
/// and at most 64 of them; with members by the embedding K alone. Throws UsageError for sizes that the model cannot have, naming what would do.
VqFitOptions vq_sizes(const ModelConfig& model, VqFitOptions options);

/// What a text tells about the model's use; each may be empty.
struct TextStatistics {
  std::vector<std::int64_t> counts;  // (V) of tokens; rows then weigh by sqrt(count + 1), else all alike
  std::vector<float> mean_hidden;    // (d) o
  HiddenStates hidden;               // what the clusters' part is fitted to; at least fewest_states(d), if any
};

struct VqFit {
  std::unique_ptr<VqReplacement> model;
  double kept_by_clusters = 0;         // of the rows' (weighted) variance, by the clusters' means alone
  double kept_by_codes = 0;            // and by these and the members' vectors together
  std::optional<ClusterFit> clusters;  // where there were hidden states
};

/// `source` must have a dense head (a tied one for members by the embedding, else UsageError) and outlive the result. The same source, options, text and back end give the same head.
/// Memory: the matrix once in f32, and for d > 256 its rows' 256 leading components; with hidden states the matrix up to three times,
/// the states twice, and their targets (rows, K).
VqFit fit_vq_head(const ModelSource& source, const VqFitOptions& options, const TextStatistics& text, Backend& backend);

}  // namespace vqlm
