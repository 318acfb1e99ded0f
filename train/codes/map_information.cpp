#include "train/codes/map_information.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace vqlm {
namespace {

/// Plug-in mutual information of a joint table of counts that is shown cell by cell, less its bias.
class Information {
 public:
  Information(std::size_t rows, std::size_t columns) : row_(rows, 0), column_(columns, 0) {}

  /// n > 0; every cell once.
  void add(std::size_t row, std::size_t column, double n) {
    row_[row] += n;
    column_[column] += n;
    n_log_n_ += n * std::log(n);
    ++cells_;
  }

  double nats() const {
    const double total = std::accumulate(row_.begin(), row_.end(), 0.0);
    if (total == 0) return 0;
    double sum = n_log_n_ + total * std::log(total);
    double used = 0;
    for (const std::vector<double>* margin : {&row_, &column_}) {
      for (const double n : *margin) {
        if (n == 0) continue;
        sum -= n * std::log(n);
        used += 1;
      }
    }
    return std::max(0.0, (sum - (static_cast<double>(cells_) - used + 1) / 2) / total);
  }

 private:
  std::vector<double> row_, column_;
  double n_log_n_ = 0;
  std::int64_t cells_ = 0;
};

double entropy(const std::map<std::int32_t, double>& counts, double total) {
  double sum = 0;
  for (const auto& [cluster, n] : counts) sum -= n / total * std::log(n / total);
  return sum;
}

double pairs_of(double n) {
  return n * (n - 1) / 2;
}

}  // namespace

BigramTable count_bigrams(const ShardSet& shards, std::uint64_t max_tokens, const std::vector<std::int64_t>& counts,
                          int contexts, const CountingRanks& ranks) {
  const SparseRows known = count_neighbours(shards, max_tokens, counts, contexts, {-1}, ranks);
  BigramTable table;
  SparseRows& all = table.counts;
  all.columns = known.columns + 1;
  all.row_begin.push_back(0);
  for (std::size_t v = 0; v < counts.size(); ++v) {
    auto other = static_cast<double>(counts[v]);
    for (auto i = static_cast<std::size_t>(known.row_begin[v]); i < static_cast<std::size_t>(known.row_begin[v + 1]);
         ++i) {
      all.column.push_back(known.column[i]);
      all.value.push_back(known.value[i]);
      other -= static_cast<double>(known.value[i]);
    }
    if (other > 0) {
      all.column.push_back(static_cast<std::int32_t>(known.columns));
      all.value.push_back(static_cast<float>(other));
    }
    all.row_begin.push_back(static_cast<std::int64_t>(all.column.size()));
  }
  return table;
}

double previous_token_information(const BigramTable& table, const std::vector<std::int32_t>& cluster_of_token,
                                  std::int64_t clusters) {
  const SparseRows& n = table.counts;
  VQLM_ASSERT(static_cast<std::int64_t>(cluster_of_token.size()) == n.rows());
  const auto columns = static_cast<std::size_t>(n.columns);
  std::vector<double> joint(static_cast<std::size_t>(clusters) * columns, 0);
  for (std::size_t v = 0; v < cluster_of_token.size(); ++v) {
    double* row = joint.data() + static_cast<std::size_t>(cluster_of_token[v]) * columns;
    for (auto i = static_cast<std::size_t>(n.row_begin[v]); i < static_cast<std::size_t>(n.row_begin[v + 1]); ++i) {
      row[n.column[i]] += static_cast<double>(n.value[i]);
    }
  }
  Information information(static_cast<std::size_t>(clusters), columns);
  for (std::size_t i = 0; i < joint.size(); ++i) {
    if (joint[i] > 0) information.add(i / columns, i % columns, joint[i]);
  }
  return information.nats();
}

double previous_token_information(const BigramTable& table) {
  const SparseRows& n = table.counts;
  Information information(static_cast<std::size_t>(n.rows()), static_cast<std::size_t>(n.columns));
  for (std::size_t v = 0; v + 1 < n.row_begin.size(); ++v) {
    for (auto i = static_cast<std::size_t>(n.row_begin[v]); i < static_cast<std::size_t>(n.row_begin[v + 1]); ++i) {
      information.add(v, static_cast<std::size_t>(n.column[i]), static_cast<double>(n.value[i]));
    }
  }
  return information.nats();
}

ClusterAgreement cluster_agreement(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  VQLM_ASSERT(a.size() == b.size() && !a.empty());
  std::map<std::pair<std::int32_t, std::int32_t>, double> joint;
  std::map<std::int32_t, double> of_a, of_b;
  for (std::size_t v = 0; v < a.size(); ++v) {
    joint[{a[v], b[v]}] += 1;
    of_a[a[v]] += 1;
    of_b[b[v]] += 1;
  }
  const auto total = static_cast<double>(a.size());
  ClusterAgreement result;
  double together = 0;
  for (const auto& [pair, n] : joint) {
    result.mutual_information += n / total * std::log(n * total / (of_a[pair.first] * of_b[pair.second]));
    together += pairs_of(n);
  }
  double in_a = 0, in_b = 0;
  for (const auto& [cluster, n] : of_a) in_a += pairs_of(n);
  for (const auto& [cluster, n] : of_b) in_b += pairs_of(n);
  const double mean_entropy = (entropy(of_a, total) + entropy(of_b, total)) / 2;
  result.normalized = mean_entropy > 0 ? result.mutual_information / mean_entropy : 1;
  const double by_chance = total > 1 ? in_a * in_b / pairs_of(total) : 0;
  const double most = (in_a + in_b) / 2;
  // Where nothing is left to agree about (all tokens alone, or all together), equal clusterings are the only ones.
  result.adjusted_rand = most == by_chance ? 1 : (together - by_chance) / (most - by_chance);
  return result;
}

}  // namespace vqlm
