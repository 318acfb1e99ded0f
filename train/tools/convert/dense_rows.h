// The rows of a dense head's matrix, as vectors of its tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "train/checkpoint/model_source.h"
#include "train/codes/map_fit.h"

namespace vqlm {

/// W (V, d), the embedding where it is tied. A row weighs the square root of its token's count plus one; all alike where
/// `counts` (V) is empty.
WeightedVectors read_rows(const ModelSource& source, const std::vector<std::int64_t>& counts);

/// The rows' leading components where there are more dimensions than clusters are found in, else the rows.
WeightedVectors leading_components(const WeightedVectors& x);

/// sum_v weight_v |x_v|^2, and the same of x less its weighted mean.
double weighted_squares(const WeightedVectors& x);
double weighted_variance(const WeightedVectors& x);

}  // namespace vqlm
