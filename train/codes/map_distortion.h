// What of the tokens' vectors a map can keep, with the best codebooks for its clusters and codes.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/head/code_map.h"

namespace vqlm {

/// Tokens [first, last) in order of falling count.
struct BandDistortion {
  std::int64_t first = 0, last = 0;
  double kept_by_clusters = 0;  // 1 - (squared distances from the clusters' means) / (from the mean of all tokens)
  double kept_by_codes = 0;  // the same with the codes' means of what the clusters leave over; may be below 0 in a band
};

/// vectors (V, dims), dims a multiple of G where G > 0; counts (V) order the tokens and weigh them by sqrt(count + 1), as the
/// fit does; empty: all alike, in order of ids. The first entry is all tokens, then bands that end at 100, 1,000, 10,000
/// and V. Where the codes were fitted to the vectors in another rotation, they keep less here than there.
std::vector<BandDistortion> distortion_by_frequency(const CodeMap& map, const std::vector<float>& vectors,
                                                    std::int64_t dims, const std::vector<std::int64_t>& counts);

}  // namespace vqlm
