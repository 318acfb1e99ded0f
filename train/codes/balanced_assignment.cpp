#include "train/codes/balanced_assignment.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"

namespace vqlm {
namespace {

// Clusters that a row tries to move to, and members of each that it offers its place.
constexpr std::size_t candidate_clusters = 6;
constexpr int partners = 12;

/// xorshift64* (Vigna 2016): exchanges draw some 10^7 numbers, each a few nanoseconds.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(Philox(seed, "balanced_assignment").bits(0) | 1) {}
  std::size_t below(std::size_t bound) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<std::size_t>(((state_ * 0x2545F4914F6CDD1Du) >> 32) * bound >> 32);
  }

 private:
  std::uint64_t state_;
};

}  // namespace

BalancedAssignment::BalancedAssignment(const std::vector<float>& similarity, const std::vector<float>& weight,
                                       std::int64_t clusters)
    : similarity_(similarity),
      weight_(weight),
      rows_(static_cast<std::int64_t>(weight.size())),
      clusters_(clusters),
      cluster_of_row_(weight.size(), 0),
      members_(static_cast<std::size_t>(clusters)),
      place_(weight.size(), 0) {
  VQLM_ASSERT(clusters >= 1 && clusters <= rows_ && similarity.size() == weight.size() * members_.size());
}

void BalancedAssignment::assign_greedily() {
  std::vector<float> margin(weight_.size());
  for (std::int64_t row = 0; row < rows_; ++row) {
    float best = gain(row, 0);
    float second = clusters_ > 1 ? gain(row, 1) : best;
    if (second > best) std::swap(best, second);
    for (std::int32_t k = 2; k < clusters_; ++k) {
      const float g = gain(row, k);
      second = std::max(second, std::min(g, best));
      best = std::max(best, g);
    }
    margin[static_cast<std::size_t>(row)] = best - second;
  }
  std::vector<std::int64_t> order(weight_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return margin[static_cast<std::size_t>(a)] > margin[static_cast<std::size_t>(b)];
  });
  // Room: rows / K for each cluster, and one more for the first rows % K.
  std::vector<std::int64_t> room(members_.size(), rows_ / clusters_);
  for (std::int64_t k = 0; k < rows_ % clusters_; ++k) ++room[static_cast<std::size_t>(k)];
  for (auto& members : members_) members.clear();
  for (const std::int64_t row : order) {
    std::int32_t best = -1;
    for (std::int32_t k = 0; k < clusters_; ++k) {
      if (room[static_cast<std::size_t>(k)] > 0 && (best < 0 || gain(row, k) > gain(row, best))) best = k;
    }
    auto& members = members_[static_cast<std::size_t>(best)];
    --room[static_cast<std::size_t>(best)];
    cluster_of_row_[static_cast<std::size_t>(row)] = best;
    place_[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(members.size());
    members.push_back(static_cast<std::int32_t>(row));
  }
}

std::vector<std::int32_t> BalancedAssignment::best_clusters(std::int64_t row) const {
  std::vector<std::int32_t> order(members_.size());
  std::iota(order.begin(), order.end(), 0);
  const std::size_t n = std::min(order.size(), candidate_clusters);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), order.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      const float ga = gain(row, a);
                      const float gb = gain(row, b);
                      return ga > gb || (ga == gb && a < b);
                    });
  order.resize(n);
  return order;
}

void BalancedAssignment::exchange(int sweeps, std::uint64_t seed) {
  Draws draws(seed);
  std::vector<std::vector<std::int32_t>> candidates;
  for (std::int64_t row = 0; row < rows_; ++row) candidates.push_back(best_clusters(row));
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (const std::int32_t to : candidates[static_cast<std::size_t>(row)]) {
        const std::int32_t from = cluster_of_row_[static_cast<std::size_t>(row)];
        if (to == from) break;  // the candidates after it are worse than where the row is
        const float rise = gain(row, to) - gain(row, from);
        const auto& members = members_[static_cast<std::size_t>(to)];
        std::int64_t partner = -1;
        float best = 0;
        for (int i = 0; i < partners; ++i) {
          const std::int64_t other = members[draws.below(members.size())];
          const float total = rise + gain(other, from) - gain(other, to);
          if (total > best) {
            best = total;
            partner = other;
          }
        }
        if (partner < 0) continue;
        const auto a = static_cast<std::size_t>(row);
        const auto b = static_cast<std::size_t>(partner);
        members_[static_cast<std::size_t>(from)][static_cast<std::size_t>(place_[a])] =
            static_cast<std::int32_t>(partner);
        members_[static_cast<std::size_t>(to)][static_cast<std::size_t>(place_[b])] = static_cast<std::int32_t>(row);
        std::swap(place_[a], place_[b]);
        cluster_of_row_[a] = to;
        cluster_of_row_[b] = from;
        break;
      }
    }
  }
}

}  // namespace vqlm
