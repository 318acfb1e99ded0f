// Token vectors from neighbour counts.
#pragma once

#include <cstdint>
#include <vector>

#include "train/codes/map_counts.h"

namespace vqlm {

/// Replaces counts n(v, c) by max(0, log(n(v, c) / (n(v) q(c)))), q(c) ~ n(c)^0.75 with sum 1, for the `parts` equal
/// ranges of columns on their own. Levy, Goldberg and Dagan, "Improving distributional similarity with lessons learned
/// from word embeddings", TACL 2015 (the power takes weight from rare contexts).
void to_positive_pmi(SparseRows& counts, int parts);

/// X (V, dims) = U S^power of the truncated SVD A ~ U S V^T; columns beyond the rank of A are 0. Randomized range
/// finder with 4 power iterations: Halko, Martinsson and Tropp, SIAM Review 2011.
std::vector<float> truncated_svd(const SparseRows& a, int dims, std::uint64_t seed, double power = 0.5);

/// Row coordinates of correspondence analysis: D_r^(-1/2) U S of the SVD of n(v, c) / sqrt(n(v) n(c)), distances of
/// which are chi-square distances between rows. The constant first axis is left in; centring takes it out.
std::vector<float> chi_square_vectors(SparseRows counts, int dims, std::uint64_t seed);

}  // namespace vqlm
