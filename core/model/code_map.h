// The code map of a VQ head: which cluster every token belongs to, and its sub-codes in the member codebook.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vqlm {

/// Host form. V tokens, K clusters, G groups, Q codes per group; every cluster has at least one member.
struct CodeMap {
  std::int64_t vocab_size = 0;                 // V
  std::int64_t clusters = 0;                   // K
  int groups = 0;                              // G, 0 for the published method
  int codes = 0;                               // Q, 0 where G = 0
  std::vector<std::int32_t> cluster_of_token;  // (V)
  std::vector<std::uint8_t> member_codes;      // (V, G)
  std::string provenance;                      // how it was made: one line for people

  /// Throws Error naming `origin` (a file or the maker), the first wrong value and what it must be.
  void validate(const std::string& origin) const;
};

/// Tokens by cluster: what CodeMapView calls member order.
struct MemberOrder {
  std::vector<std::int32_t> members;  // (V): tokens sorted by (cluster, id)
  std::vector<std::int32_t> begin;    // (K + 1): cluster k's members are [begin[k], begin[k + 1])

  MemberOrder(const std::vector<std::int32_t>& cluster_of_token, std::int64_t clusters);
};

/// Throws UsageError for sizes that no map can have: 1 <= K <= V, G >= 0, 1 <= Q <= 256 where G > 0, Q = 0 where G = 0.
void check_code_map_sizes(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes);

/// Every token a random cluster (sizes equal to within one) and random sub-codes, from `seed`.
CodeMap make_random_map(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes,
                        std::uint64_t seed);

/// Tokens in order of falling count, cut into K blocks of equal size; inside a block the sub-codes are
/// random. counts (V).
CodeMap make_frequency_map(const std::vector<std::int64_t>& counts, std::int64_t clusters, int groups,
                           int codes, std::uint64_t seed);

/// b_v = log((count_v + 1) / (total + V)), (V): where every head's token bias starts.
std::vector<float> log_unigram(const std::vector<std::int64_t>& counts);

}  // namespace vqlm
