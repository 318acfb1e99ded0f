// What nobody may read between an update and the gathers of its values.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/backend.h"
#include "core/parameters.h"
#include "dist/process_grid.h"

namespace vqlm::testing {

/// Fills the stale buckets with NaN, but for this rank's pieces. Whoever reads them before they are gathered makes losses NaN.
/// Returns how many buckets were stale.
inline int poison_stale_values(Backend& backend, const ProcessGrid& grid, const ParameterStore& store) {
  int stale = 0;
  for (const ParameterBucket& bucket : store.buckets()) {
    if (!bucket.stale) continue;
    ++stale;
    const std::int64_t share = bucket.count / grid.data_size();
    for (int rank = 0; rank < grid.data_size(); ++rank) {
      const std::int64_t begin = bucket.begin + rank * share;
      if (rank == grid.data_rank()) continue;
      if (store.has_masters(begin, share)) backend.fill(store.masters(begin, share), std::nanf(""));
      if (const Tensor rounded = store.flat_rounded()) backend.fill(rounded.range(begin, share), std::nanf(""));
    }
  }
  return stale;
}

}  // namespace vqlm::testing
