// From sums of hidden states to the vectors that a map is fitted to. Another kind of vector (whitened by the covariance within
// classes, say) is another function with the contract of shrunk_class_means().
#pragma once

#include <cstdint>
#include <vector>

#include "train/codes/class_sums.h"

namespace vqlm {

/// Rows of evidence that the mean of a token's cluster counts for. Chosen, not tuned.
constexpr double prior_rows = 8;

/// (V, r): m_v = (sum_v + a p_v) / (count_v + a), a = prior_rows, p_v = the mean over all rows of the tokens in v's cluster
/// (of all rows where it has none): the mean of a token seen often is its own, of one never seen its cluster's. Zeros where
/// there are no rows at all. cluster_of_token (V), each in [0, clusters).
std::vector<double> shrunk_class_means(const ClassSums& sums, const std::vector<std::int32_t>& cluster_of_token,
                                       std::int64_t clusters);

/// Subtracts from every row of x (V, r) the mean of all rows, weighted by weight (V).
void subtract_mean(std::vector<double>& x, std::int64_t dims, const std::vector<float>& weight);

/// Every value as a whole number of steps: x / step, rounded to nearest, where the root mean square of all values (itself
/// rounded to 8 bits) has `steps` of them. The rounding is 1 / (12 steps^2) of the variance. What is decided from such values
/// is the same for inputs that differ in their last bits (another process grid), but where one lies that close to a boundary:
/// of n values that differ by e root mean squares, about n e steps do. Zeros stay.
std::vector<float> on_coarse_grid(const std::vector<double>& x, double steps);

}  // namespace vqlm
