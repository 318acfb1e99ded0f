// Sizes of scatter_add_rows and which rows it adds to, for its tests on every back end.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "tests/core/op_testing.h"

namespace vqlm::testing {

struct ScatteredRows {
  std::int64_t count, table_rows, width;

  /// `count` different rows of the table, shuffled.
  HostI32 rows() const {
    std::vector<std::int32_t> all(static_cast<std::size_t>(table_rows));
    std::iota(all.begin(), all.end(), 0);
    const Philox rng(5, "rows");
    for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[rng.below(i, i)]);
    HostI32 chosen({count});
    std::copy_n(all.begin(), count, chosen.tensor().i32());
    return chosen;
  }
};

}  // namespace vqlm::testing
