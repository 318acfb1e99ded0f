// What counts alone say about a map: what its clusters keep of what the previous token tells, and how two maps agree.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model/head/code_map.h"
#include "train/codes/map_counts.h"

namespace vqlm {

/// How often each token (V rows) followed each of the C most frequent tokens, and in the last column any other.
struct BigramTable {
  SparseRows counts;  // (V, C + 1)
};

/// Collective over `ranks`; counts (V): of the same max_tokens. Memory: 12 bytes for each distinct pair.
BigramTable count_bigrams(const ShardSet& shards, std::uint64_t max_tokens, const std::vector<std::int64_t>& counts,
                          int contexts, const CountingRanks& ranks = {});

/// I(previous token; cluster of the next one) in nats a token, with the classes of the previous one that the table has:
/// sum n_ck / N log(n_ck N / (n_c n_k)), less (cells - rows - columns + 1) / (2 N), the first-order bias of counting (Miller,
/// 1955; cells, rows and columns that are not 0); not below 0. cluster_of_token (V) in [0, clusters).
double previous_token_information(const BigramTable& table, const std::vector<std::int32_t>& cluster_of_token,
                                  std::int64_t clusters);
/// The same with every token a cluster of its own: what no map can exceed.
double previous_token_information(const BigramTable& table);

/// How alike two maps' clusters are, every token counting once.
struct ClusterAgreement {
  double mutual_information = 0;  // nats
  double normalized = 0;          // over the mean of the two entropies: 0 to 1
  double adjusted_rand = 0;       // Hubert and Arabie, 1985: 1 the same, about 0 by chance
};

/// Both (V).
ClusterAgreement cluster_agreement(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b);

}  // namespace vqlm
