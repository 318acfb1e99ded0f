// The clusters' part of a VQ head, fitted to the hidden states that a text makes in the dense model.
//
// Exact is the target p_k(h) = sum_{v in k} softmax_v(h . w_v + b_v), and what is fitted is its mean cross entropy
//
//   min over c, beta of  mean_h - sum_k p_k(h) log softmax_k(h . c_k + beta_k)
//
// the mean entropy of p away from the mean divergence D(p || softmax): what of the model's own divergence is the clusters'.
// It is convex in (c, beta). L-BFGS minimises it from the given start, in coordinates in which it bends alike everywhere: hidden
// states less their mean, whitened by the Cholesky factor of their covariance, and the row of cluster k divided by the
// root of mean p_k (1 - p_k), its diagonal of the Hessian there. The last tenth of the states is held back: what is best there
// is taken, the start included.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "core/model/head/code_map.h"
#include "train/codes/map_fit.h"
#include "train/tools/convert/hidden_states.h"

namespace vqlm {

/// p_k(h), (rows, K), of the dense rows `w` and their biases (V). Memory beside the result: `w` once more, and 64 MiB.
std::vector<float> cluster_probabilities(const WeightedVectors& w, const std::vector<float>& bias, const CodeMap& map,
                                         const HiddenStates& hidden, Backend& backend);

struct ClusterFit {
  std::int64_t fitted = 0, held_back = 0;  // hidden states
  int steps = 0;                           // taken of those tried
  double before = 0, after = 0;            // mean D(p || softmax) of those held back, nats
};

/// The fewest hidden states that a fit takes: so many that those fitted to are more than a cluster's d + 1 numbers.
std::int64_t fewest_states(std::int64_t d);

/// Moves `codebook` (K, d) and `bias` (K) to the minimum. `targets`: (rows, K), as cluster_probabilities() gives them. At
/// least fewest_states(d) hidden states. Memory: the hidden states once more, and 20 times the codebook.
ClusterFit fit_clusters(std::vector<float>& codebook, std::vector<float>& bias, const HiddenStates& hidden,
                        const std::vector<float>& targets, Backend& backend);

}  // namespace vqlm
