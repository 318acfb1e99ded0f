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
  std::int64_t counted_tokens = 0;             // of the text that it was made from; 0: of none, or not known

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
CodeMap make_random_map(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes, std::uint64_t seed);

/// Tokens in order of falling count, cut into K blocks of equal size; inside a block the sub-codes are
/// random. counts (V).
CodeMap make_frequency_map(const std::vector<std::int64_t>& counts, std::int64_t clusters, int groups, int codes,
                           std::uint64_t seed);

/// Tokens in order of their ids, cut into K blocks of equal size; inside a block the sub-codes are random.
CodeMap make_contiguous_map(std::int64_t vocab_size, std::int64_t clusters, int groups, int codes, std::uint64_t seed);

/// The n tokens with the largest counts, most frequent first (ties: the smaller id first). counts (V), 0 <= n <= V.
std::vector<std::int32_t> most_frequent_tokens(const std::vector<std::int64_t>& counts, std::int64_t n);

/// The map of a whole vocabulary from that of the tokens without a cluster of their own. own[i] is cluster i's only
/// member; the other tokens keep the codes of `rest`, in whose rows they stand by rising id, and their clusters follow
/// the own ones: V = rest.V + n, K = rest.K + n. The codes of own tokens are 0 and are never read in a score: a cluster
/// of one has probability 1 for its member.
CodeMap with_own_clusters(const CodeMap& rest, const std::vector<std::int32_t>& own);

/// What is left of values (V) without those of the tokens `own`, by rising id.
template <class T>
std::vector<T> without_tokens(const std::vector<T>& values, const std::vector<std::int32_t>& own) {
  std::vector<bool> left_out(values.size(), false);
  for (const std::int32_t token : own) left_out[static_cast<std::size_t>(token)] = true;
  std::vector<T> rest;
  rest.reserve(values.size() - own.size());
  for (std::size_t token = 0; token < values.size(); ++token) {
    if (!left_out[token]) rest.push_back(values[token]);
  }
  return rest;
}

/// b_v = log((count_v + 1) / (total + V)), (V): where every head's token bias starts.
std::vector<float> log_unigram(const std::vector<std::int64_t>& counts);

}  // namespace vqlm
