// LossTally: sums of tokens' losses by class that are the same in any order of additions, so on any grid of ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

/// Means over the tokens of a class, in nats.
struct LossMeans {
  std::int64_t tokens = 0;
  double nll = 0;                     // cluster_nll + member_nll where these are known; NaN where there are no tokens
  std::optional<double> cluster_nll;  // which cluster; none for heads without clusters
  std::optional<double> member_nll;   // which of its members
};

enum class LossParts { whole, cluster_and_member };

class LossTally {
 public:
  LossTally(std::size_t classes, LossParts parts);

  /// A token of class `index` whose loss is nll; cluster_nll is its part for the cluster, and is read only where the tally
  /// has parts. Losses are kept in whole steps of 2^-28 nats (an error of 2e-9 at most; a float near 1 is known to 6e-8), so
  /// that sums are exact up to 3e10 nats a class.
  void add(std::size_t index, float nll, float cluster_nll);
  /// Adds the other ranks' sums. Collective.
  void sum_over_ranks(Backend& backend, Communicator& group);

  LossMeans means(std::size_t index) const;
  /// Of all classes together.
  LossMeans total() const;

 private:
  struct Sums {
    std::int64_t tokens = 0;
    std::int64_t nll = 0;      // in steps
    std::int64_t cluster = 0;  // in steps
    std::int64_t wild = 0;     // tokens whose loss is no finite number, or beyond any that makes sense
  };
  LossMeans means_of(const Sums& sums) const;

  std::vector<Sums> classes_;
  LossParts parts_;
};

}  // namespace vqlm
