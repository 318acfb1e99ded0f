// The benchmark of the heads over a grid of vocabularies and widths, one table.
#pragma once

#include <string>
#include <vector>

#include "train/tools/bench/head_bench.h"

namespace vqlm {

/// The VQ head's sizes for about 1 % of V d numbers: Q = V / 200 and K = V / 100 - Q in whole sixteens, Q at most 256, K at
/// least Q; G the largest power of two that divides d, at most 64 and at most d / 16.
struct HeadBudget {
  std::int64_t clusters = 0;  // K
  int groups = 0;             // G
  int codes = 0;              // Q
};
HeadBudget budget_for(std::int64_t vocab_size, std::int64_t width);

/// run_head_bench of every vocabulary at every width, the sizes from budget_for; everything else as in `options`. Rates are
/// measured once, before.
std::vector<HeadBenchResult> run_head_grid(Backend& backend, const HeadBenchOptions& options,
                                           const std::vector<std::int64_t>& vocabularies,
                                           const std::vector<std::int64_t>& widths);

/// One line a size; what was skipped is a dash there, and stands below with its reason.
std::string grid_text(const std::vector<HeadBenchResult>& grid);
/// {"grid": [...]}, each element as to_json(HeadBenchResult).
std::string grid_json(const std::vector<HeadBenchResult>& grid);

}  // namespace vqlm
