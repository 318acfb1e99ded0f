// A code map fitted to the hidden states that predict each token. Host memory, one rank.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"
#include "train/codes/class_sums.h"
#include "train/codes/map_carry_over.h"

namespace vqlm {

struct RefitOptions {
  std::int64_t own_tokens = 0;
  std::uint64_t seed = 0;
  std::string source;  // whose hidden states they are, for the provenance
};

struct Refit {
  CodeMap map;
  double moved_tokens = 0;  // the share of tokens whose cluster is another one,
  double moved_mass = 0;    // and of the training shards' tokens
};

/// A map for the head `values` on `map`, fitted to `sums` of its model's hidden states. Clusters: balanced spherical
/// k-means (map_fit.h) of shrunk_class_means() less their mean, starting from the clusters at hand, and named_after()
/// them. Codes of group g: k-means, starting from the codes at hand, of pairs of what the token's member vector should
/// be to keep the head as it is (wanted_members) and what its class mean, in the columns that belong to g, has beside
/// its cluster's, both scaled to the same variance. The `own_tokens` tokens most frequent in counts (V, of the training
/// shards) have clusters of their own. All decisions are made on values on_coarse_grid().
Refit refit_map(const CodeMap& map, const HeadArrays& values, const ClassSums& sums,
                const std::vector<std::int64_t>& counts, const RefitOptions& options, Backend& backend);

}  // namespace vqlm
