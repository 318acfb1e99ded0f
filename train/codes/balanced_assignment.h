// Rows to clusters of equal size, so that the sum of similarities is large.
#pragma once

#include <cstdint>
#include <vector>

namespace vqlm {

/// Maximises sum over v of weight_v * similarity(v, cluster of v) under sizes equal to within one. The exact optimum is
/// a transport problem; greedy by margin and exchanges of pairs come within a per cent of it in a fraction of a second.
class BalancedAssignment {
 public:
  /// similarity (rows, K) and weight (rows) must outlive the object.
  BalancedAssignment(const std::vector<float>& similarity, const std::vector<float>& weight, std::int64_t clusters);

  /// Rows that have most to lose by their second choice choose first; each takes the best cluster with room.
  void assign_greedily();
  /// Every row in turn tries its best clusters against a few random members of them and exchanges places where the sum
  /// rises; `sweeps` times.
  void exchange(int sweeps, std::uint64_t seed);

  const std::vector<std::int32_t>& cluster_of_row() const { return cluster_of_row_; }

 private:
  float gain(std::int64_t row, std::int32_t cluster) const {
    return weight_[static_cast<std::size_t>(row)] * similarity_[static_cast<std::size_t>(row * clusters_ + cluster)];
  }
  std::vector<std::int32_t> best_clusters(std::int64_t row) const;

  const std::vector<float>& similarity_;
  const std::vector<float>& weight_;
  std::int64_t rows_;
  std::int64_t clusters_;
  std::vector<std::int32_t> cluster_of_row_;
  std::vector<std::vector<std::int32_t>> members_;  // of each cluster
  std::vector<std::int32_t> place_;                 // of each row in its cluster's members
};

}  // namespace vqlm
