// A code map from token vectors: balanced clusters, then product codes of what the clusters leave over.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/backend.h"

namespace vqlm {

/// Token vectors (rows, dims) with a weight for each row.
struct WeightedVectors {
  std::int64_t rows = 0;
  std::int64_t dims = 0;
  std::vector<float> values;  // (rows, dims)
  std::vector<float> weight;  // (rows), above 0
};

/// Subtracts the mean, turns by a random rotation (so that every group of dimensions carries a like share of the
/// variance) and scales rows to length 1 (rows of zeros stay).
void centre_rotate_normalise(WeightedVectors& x, std::uint64_t seed);

/// Balanced spherical k-means: clusters (rows) in [0, K), sizes equal to within one, that make the weighted sum of
/// x_v . c_k(v) large, c_k the normalised weighted sum of its members. Greedy assignment by margin, then exchanges of
/// pairs that raise the sum; alternates with the centres. 1 <= K <= rows. The first centres are those of the clusters
/// `start` (rows), where given, else they are drawn.
std::vector<std::int32_t> balanced_clusters(const WeightedVectors& x, std::int64_t clusters, std::uint64_t seed,
                                            Backend& backend, const std::vector<std::int32_t>& start = {});

/// Subtracts from every row the weighted mean of its cluster.
void subtract_cluster_means(WeightedVectors& x, const std::vector<std::int32_t>& cluster_of_row, std::int64_t clusters);

/// Product quantisation (Jegou, Douze and Schmid, PAMI 2011): codes (rows, G); group g holds dimensions
/// [g dims / G, (g + 1) dims / G), and its code is the nearest of `codes` centres of a weighted k-means there. G divides
/// dims; codes at most 256. The first centres are the means of the codes `start` (rows, G), each below `codes`, where given
/// (one without rows: a drawn row), else drawn rows.
std::vector<std::uint8_t> product_codes(const WeightedVectors& x, int groups, int codes, std::uint64_t seed,
                                        const std::vector<std::uint8_t>& start = {});

}  // namespace vqlm
