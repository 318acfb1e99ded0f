// Exact search and sampling over a vocabulary in clusters, without a pass over all tokens. The probability of a token v of
// cluster k is p(v) = p(k) p(v | k), so p(k) bounds every member: clusters are visited in falling order of p(k), and what
// is more probable than the next cluster's bound is final. A sample takes its cluster first, and only that cluster's
// members are looked at.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/model/head/token_choice.h"

namespace vqlm {

class ClusterSearch {
 public:
  /// log p(v | k) of the members of some clusters: row i of (clusters.size(), stride) belongs to clusters[i], in member
  /// order; what lies past a cluster's size is not read. Must stay valid until the next call.
  struct MemberRows {
    std::span<const float> log_probs;
    std::size_t stride = 0;
  };
  using Members = std::function<MemberRows(std::span<const std::int32_t> clusters)>;

  /// members (V): token ids in order of (cluster, id); member_begin (K + 1): cluster k's are [member_begin[k],
  /// member_begin[k + 1]). `first` clusters are asked for at the start of a search, twice as many at every next time, never
  /// more than `most`: a device answers many at the price of one, a host should not be asked for what is not needed.
  ClusterSearch(std::vector<std::int32_t> members, std::vector<std::int32_t> member_begin, std::size_t first,
                std::size_t most);

  /// OutputHead::most_probable(), from cluster_log_probs (K), log p(k). Every value is cluster_log_probs[k] + log p(v | k)
  /// rounded once; no token that belongs to the result by these values is missed. Throws Error for a NaN.
  std::vector<TokenLogProb> most_probable(std::span<const float> cluster_log_probs, std::int64_t count, double mass,
                                          const Members& members);
  /// OutputHead::sample(). Throws Error for a NaN.
  std::int32_t sample(std::span<const float> cluster_log_probs, float temperature,
                      const std::function<double()>& uniform, const Members& members);

  /// Clusters whose members the last search asked for.
  std::int64_t visited() const { return visited_; }

 private:
  std::size_t size_of(std::int32_t cluster) const {
    const auto k = static_cast<std::size_t>(cluster);
    return static_cast<std::size_t>(member_begin_[k + 1] - member_begin_[k]);
  }
  /// All clusters that have members become open, a heap with the largest of bounds_ in front.
  void open_all();
  std::int32_t pop_open();
  bool lower_bound_of(std::int32_t a, std::int32_t b) const {
    return bounds_[static_cast<std::size_t>(a)] < bounds_[static_cast<std::size_t>(b)];
  }

  /// Visits the next clusters and puts their members among found_.
  void collect(std::size_t at_once, std::int64_t count, const Members& members);
  /// Visits a cluster and the next open ones: keeps their rows and sets their log_weights_ to what they are.
  void visit(std::int32_t proposed, std::size_t at_once, double power, std::span<const float> cluster_log_probs,
             const Members& members);
  std::int32_t draw_member(std::int32_t cluster, double power, const std::function<double()>& uniform);

  std::vector<std::int32_t> members_, member_begin_;
  std::size_t first_, most_;
  std::int64_t visited_ = 0;

  // Working memory, kept from call to call.
  std::vector<float> bounds_;             // (K): log p(k); of sampling: the weights before any visit
  std::vector<std::int32_t> open_;        // clusters not yet visited, a heap
  std::vector<std::int32_t> asked_;       // the clusters of one call of Members
  std::vector<TokenLogProb> found_;       // members of visited clusters that are not final, a heap
  std::vector<double> log_weights_;       // (K): of sampling; an upper bound until the cluster is visited
  std::vector<std::ptrdiff_t> place_of_;  // (K): where in rows_ a visited cluster's members start, else -1
  std::vector<float> rows_;               // log p(v | k) of the clusters that a sample visited
  std::vector<double> member_weights_, weights_;
};

}  // namespace vqlm
