// The norm of query and key heads in double precision, on one rank, as one formula: what the ops do in steps.
#pragma once

#include <cmath>
#include <vector>

#include "core/ops/qk_norm.h"
#include "tests/core/op_testing.h"

namespace vqlm::testing {

/// A call: how many groups a row has (QkGroup), and how many ranks' columns a sum of squares stands for.
struct QkNormCase {
  AttentionShape shape;
  bool width;
  int ranks = 1;

  std::int64_t rows() const { return shape.batch * shape.seq_len; }
  std::int64_t groups() const { return width ? 2 : shape.heads + shape.kv_heads; }
  std::int64_t q_size() const { return qk_group(shape, groups(), 0).size; }
  std::int64_t k_size() const { return qk_group(shape, groups(), groups() - 1).size; }
};

/// Odd widths, tails of packs and rows, one head, and rows of several blocks.
inline std::vector<QkNormCase> qk_norm_cases() {
  return {{{1, 3, 2, 1, 4}, false},   {{1, 3, 2, 1, 4}, true},    {{2, 5, 3, 3, 6}, false},
          {{2, 5, 3, 1, 6}, true, 2}, {{1, 70, 4, 2, 32}, false}, {{1, 70, 4, 2, 32}, true, 3},
          {{1, 1, 1, 1, 64}, false},  {{3, 40, 5, 5, 24}, true},  {{1, 2, 8, 2, 128}, false},
          {{1, 300, 2, 1, 16}, true}, {{0, 4, 2, 1, 8}, false}};
}

/// Sums over the other ranks' columns, which a rank alone only knows by the reduction: so much more of its own.
inline double of_all_ranks(double own, int ranks) {
  return own * (1 + 0.5 * (ranks - 1));
}

/// y of x (rows, row); `sizes` (rows, groups), where given, gets the sums of |terms|, for bounds.
inline std::vector<double> qk_norm(const QkNormCase& c, std::vector<double> x, const std::vector<double>& q_gain,
                                   const std::vector<double>& k_gain, double eps) {
  const std::int64_t row = c.shape.row();
  for (std::int64_t n = 0; n < c.rows(); ++n) {
    for (std::int64_t g = 0; g < c.groups(); ++g) {
      const QkGroup group = qk_group(c.shape, c.groups(), g);
      double squares = 0;
      const auto at = [&](std::int64_t i) -> double& { return x[static_cast<std::size_t>(n * row + group.begin + i)]; };
      for (std::int64_t i = 0; i < group.size; ++i) squares += at(i) * at(i);
      const double rstd =
          1 / std::sqrt(of_all_ranks(squares, c.ranks) / static_cast<double>(group.size * c.ranks) + eps);
      for (std::int64_t i = 0; i < group.size; ++i)
        at(i) *= rstd * (group.key ? k_gain : q_gain)[static_cast<std::size_t>(i)];
    }
  }
  return x;
}

}  // namespace vqlm::testing
