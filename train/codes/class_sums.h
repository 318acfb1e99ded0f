// Sums of hidden states by the token that they predict: what a code map is re-fitted to.
//
// A value is rounded to a multiple of 2^-20 when it is added, and sums are integers: exact, so that they do not depend
// on how rows were cut into batches and ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/communicator.h"

namespace vqlm {

struct ClassSums {
  std::int64_t vocab_size = 0;       // V
  std::int64_t dims = 0;             // r
  std::vector<std::int64_t> sums;    // (V, r), in units of 2^-20
  std::vector<std::int64_t> counts;  // (V): rows of each token

  static constexpr double unit = 0x1p-20;
  /// What a value is cut to: normalised hidden states stay far below, and 2^22 rows of one token fit into 53 bits,
  /// which sums over ranks need.
  static constexpr double largest = 0x1p11;

  ClassSums() = default;
  ClassSums(std::int64_t vocabulary, std::int64_t dimensions);

  /// Adds rows (n, r), each to the sums of its target; rows with a target below 0 are left out. Values must be finite.
  void add(std::span<const float> rows, std::span<const std::int32_t> targets);
  double sum(std::int64_t token, std::int64_t dim) const {
    return unit * static_cast<double>(sums[static_cast<std::size_t>(token * dims + dim)]);
  }
};

/// The sum over all ranks of theirs, on every rank. Collective.
ClassSums total_over(Backend& backend, Communicator& group, const ClassSums& own);

}  // namespace vqlm
