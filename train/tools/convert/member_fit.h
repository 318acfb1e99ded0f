// The members' part of a fitted VQ head: product codes that stand for what the clusters' vectors leave over of the rows.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/head/code_map.h"
#include "train/codes/map_fit.h"
#include "train/tools/convert/hidden_states.h"

namespace vqlm {

/// Fills in map.member_codes and returns the codebook u (G, Q, d / G) for the rows less their clusters' means, `residual`: by
/// product_codes(), and by the weighted means of the residuals that have a code.
std::vector<float> fit_members(CodeMap& map, const WeightedVectors& residual, std::uint64_t seed);

/// The same where hidden states are known: what the members' logits are off by is h . (r_v - u_v), and its mean square is the
/// error in the metric of the states' covariance M (the mean state's share stands in the biases). Starts from product codes in
/// the metric of each group's block of M; then goes over the groups in turn, each coding r_g + (sum over the others of
/// e_h M_hg) M_gg^-1, e = r - u, which is exact for the error as a whole. A vector common to a cluster's members changes
/// no probability, so that r is e's mean less in every round. Memory: the residual twice more.
std::vector<float> fit_members(CodeMap& map, WeightedVectors residual, const HiddenMoments& moments,
                               std::uint64_t seed);

/// row -= u of the token, for every token.
void subtract_members(const CodeMap& map, const std::vector<float>& member_codebook, WeightedVectors& x);

}  // namespace vqlm
