// Code maps for tests of the VQ head's ops: clusters of given sizes, tokens dealt to them in a shuffled order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <ostream>
#include <utility>
#include <vector>

#include "tests/core/op_testing.h"

namespace vqlm::testing {

/// A head and a batch.
struct MemberCase {
  const char* name;
  std::int64_t rows;
  int groups, codes, width;
  std::vector<std::int64_t> cluster_sizes;
  bool first_cluster_has_most_rows = false;
  bool largest_cluster_known = true;  // to the host, which bounds its workspace by it
  bool own_vectors = false;           // groups = 1 and codes = V: member_codebook is (V, d), and there are no codes

  std::int64_t vocabulary() const {
    return std::accumulate(cluster_sizes.begin(), cluster_sizes.end(), std::int64_t{0});
  }
  std::int64_t clusters() const { return static_cast<std::int64_t>(cluster_sizes.size()); }
  std::int64_t d() const { return std::int64_t{groups == 0 ? 1 : groups} * width; }
  /// Of member_codebook.
  Shape codebook_shape() const { return own_vectors ? Shape({vocabulary(), d()}) : Shape({groups, codes, width}); }
};

/// A head whose members have vectors of their own.
inline MemberCase with_own_vectors(const char* name, std::int64_t rows, int d, std::vector<std::int64_t> sizes,
                                   bool first_cluster_has_most_rows = false, bool largest_cluster_known = true) {
  const std::int64_t vocabulary = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  return {name,
          rows,
          1,
          static_cast<int>(vocabulary),
          d,
          std::move(sizes),
          first_cluster_has_most_rows,
          largest_cluster_known,
          true};
}

inline std::ostream& operator<<(std::ostream& out, const MemberCase& c) {
  return out << c.name;
}

/// The code map's tensors on the host.
struct MemberMap {
  explicit MemberMap(const MemberCase& c)
      : cluster_of_token({c.vocabulary()}),
        position_of_token({c.vocabulary()}),
        members({c.vocabulary()}),
        member_begin({c.clusters() + 1}),
        member_codes(random_integers<std::uint8_t>({c.vocabulary(), c.own_vectors ? 0 : c.groups}, "codes", 0,
                                                   std::max(0, c.codes - 1))),
        groups(c.groups) {
    std::vector<std::int32_t> cluster;
    for (std::int64_t k = 0; k < c.clusters(); ++k) {
      cluster.insert(cluster.end(), static_cast<std::size_t>(c.cluster_sizes[static_cast<std::size_t>(k)]),
                     static_cast<std::int32_t>(k));
    }
    const Philox rng(7, "deal");
    for (std::size_t v = cluster.size(); v > 1; --v) std::swap(cluster[v - 1], cluster[rng.below(v, v)]);
    std::int32_t position = 0;
    for (std::int64_t k = 0; k < c.clusters(); ++k) {
      member_begin[k] = position;
      for (std::int64_t v = 0; v < c.vocabulary(); ++v) {
        if (cluster[static_cast<std::size_t>(v)] != k) continue;
        cluster_of_token[v] = static_cast<std::int32_t>(k);
        members[position] = static_cast<std::int32_t>(v);
        position_of_token[v] = position++;
      }
    }
    member_begin[c.clusters()] = position;
    if (c.largest_cluster_known) largest_cluster = *std::ranges::max_element(c.cluster_sizes);
  }

  CodeMapView view() {
    return {cluster_of_token,
            position_of_token,
            members,
            member_begin,
            member_codes.size() > 0 ? member_codes.tensor() : Tensor{},
            {},
            largest_cluster};
  }

  /// Which of its group's sub-codes the member at `position` has; of a member with a vector of its own, its row.
  std::int64_t code(std::int64_t position, int g) const {
    return member_codes.size() > 0 ? member_codes[position * groups + g] : position;
  }

  HostI32 cluster_of_token, position_of_token, members, member_begin;
  HostU8 member_codes;
  int groups;
  std::int64_t largest_cluster = 0;
};

}  // namespace vqlm::testing
