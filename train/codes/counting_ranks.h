// The ranks of a job that share the passes over the shards from which a code map is made or judged.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace vqlm {

/// Alone unless said. Whoever counts visits its part of the blocks and sums what was found; counts are whole numbers below
/// 2^53, which doubles add exactly in any order, so that the sums are the same bits whatever the number of ranks.
struct CountingRanks {
  int rank = 0;
  int size = 1;
  /// values: the sum over all ranks of theirs. Collective; the same length everywhere.
  std::function<void(std::vector<double>& values)> sum = [](std::vector<double>&) {};

  bool is_root() const { return rank == 0; }
};

}  // namespace vqlm
