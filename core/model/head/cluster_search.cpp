#include "core/model/head/cluster_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"

namespace vqlm {
namespace {

/// log p(v | k) with what rounding may have lifted above 0 put back there. With that, p(k) bounds the members' values to the
/// last bit and not only up to rounding: addition is monotone, fl(log p(k) + x) <= log p(k) for every x <= 0.
float member_log_prob(float computed) {
  if (std::isnan(computed)) refuse_nan();
  return std::min(computed, 0.0f);
}

// S_k = sum_v p(v | k)^a is at most |k|^max(0, 1 - a) where the p(v | k) add up to 1 (Hoelder); rounded ones add up to
// 1 + e. A score s and the log-sum-exp carry errors of some 4 u max|s| (u = 2^-24), so e < 2^-10 as long as |s| < 2^12.
const double envelope_margin = std::log1p(0x1p-10);

}  // namespace

ClusterSearch::ClusterSearch(std::vector<std::int32_t> members, std::vector<std::int32_t> member_begin,
                             std::size_t first, std::size_t most)
    : members_(std::move(members)), member_begin_(std::move(member_begin)), first_(first), most_(most) {
  VQLM_ASSERT(!members_.empty() && member_begin_.size() >= 2 && first_ >= 1 && first_ <= most_);
  VQLM_ASSERT(static_cast<std::size_t>(member_begin_.back()) == members_.size());
}

void ClusterSearch::open_all() {
  VQLM_ASSERT(bounds_.size() + 1 == member_begin_.size());
  open_.clear();
  for (std::size_t k = 0; k < bounds_.size(); ++k) {
    if (std::isnan(bounds_[k])) refuse_nan();
    if (size_of(static_cast<std::int32_t>(k)) > 0) open_.push_back(static_cast<std::int32_t>(k));
  }
  std::make_heap(open_.begin(), open_.end(), [this](std::int32_t a, std::int32_t b) { return lower_bound_of(a, b); });
  visited_ = 0;
}

std::int32_t ClusterSearch::pop_open() {
  std::pop_heap(open_.begin(), open_.end(), [this](std::int32_t a, std::int32_t b) { return lower_bound_of(a, b); });
  const std::int32_t cluster = open_.back();
  open_.pop_back();
  return cluster;
}

std::vector<TokenLogProb> ClusterSearch::most_probable(std::span<const float> cluster_log_probs, std::int64_t count,
                                                       double mass, const Members& members) {
  bounds_.assign(cluster_log_probs.begin(), cluster_log_probs.end());
  open_all();
  found_.clear();
  std::vector<TokenLogProb> chosen;
  double total = 0;
  for (std::size_t at_once = first_;; at_once = std::min(2 * at_once, most_)) {
    // An unvisited token that is exactly as probable may have a lower id: only what is above the bound is final.
    while (!found_.empty() &&
           (open_.empty() || found_.front().log_prob > bounds_[static_cast<std::size_t>(open_.front())])) {
      std::pop_heap(found_.begin(), found_.end(), less_probable);
      chosen.push_back(found_.back());
      found_.pop_back();
      total += std::exp(static_cast<double>(chosen.back().log_prob));
      if (std::cmp_greater_equal(chosen.size(), count) || total >= mass) return chosen;
    }
    if (open_.empty()) return chosen;
    collect(at_once, count, members);
  }
}

void ClusterSearch::collect(std::size_t at_once, std::int64_t count, const Members& members) {
  const bool one = count <= 1;
  asked_.clear();
  while (asked_.size() < at_once && !open_.empty()) {
    const float bound = bounds_[static_cast<std::size_t>(open_.front())];
    if (one && !found_.empty() && bound < found_.front().log_prob) break;
    asked_.push_back(pop_open());
  }
  visited_ += static_cast<std::int64_t>(asked_.size());
  const MemberRows rows = members(asked_);
  for (std::size_t i = 0; i < asked_.size(); ++i) {
    const auto k = static_cast<std::size_t>(asked_[i]);
    const float* const row = rows.log_probs.data() + i * rows.stride;
    const std::int32_t* const tokens = members_.data() + member_begin_[k];
    for (std::size_t w = 0; w < size_of(asked_[i]); ++w) {
      const TokenLogProb found{tokens[w], bounds_[k] + member_log_prob(row[w])};
      if (!one || found_.empty()) {
        found_.push_back(found);
      } else if (less_probable(found_.front(), found)) {
        found_.front() = found;  // the others cannot be chosen
      }
    }
  }
  std::make_heap(found_.begin(), found_.end(), less_probable);
}

std::int32_t ClusterSearch::sample(std::span<const float> cluster_log_probs, float temperature,
                                   const std::function<double()>& uniform, const Members& members) {
  VQLM_ASSERT(temperature > 0);
  // With a = 1 / temperature a token's weight is p(v)^a = p(k)^a p(v | k)^a, a cluster's p(k)^a S_k. A cluster is proposed by
  // p(k)^a times a bound of S_k, and accepted with S_k / bound; from its visit on it is proposed by p(k)^a S_k itself. In
  // every round the accepted proposals follow p(k)^a S_k, whatever was visited before.
  const bool plain = temperature == 1.0f;  // S_k = 1
  const double power = plain ? 1.0 : 1.0 / static_cast<double>(temperature);
  const std::size_t clusters = cluster_log_probs.size();
  log_weights_.assign(clusters, -std::numeric_limits<double>::infinity());
  for (std::size_t k = 0; k < clusters; ++k) {
    const auto size = static_cast<double>(size_of(static_cast<std::int32_t>(k)));
    if (size == 0) continue;
    log_weights_[k] = power * static_cast<double>(cluster_log_probs[k]);
    if (!plain) log_weights_[k] += std::max(0.0, 1.0 - power) * std::log(size) + envelope_margin;
  }
  bounds_.assign(log_weights_.begin(), log_weights_.end());
  open_all();
  place_of_.assign(clusters, -1);
  rows_.clear();
  for (std::size_t at_once = plain ? 1 : first_;; at_once = std::min(2 * at_once, most_)) {
    const std::size_t k = draw(log_weights_, uniform, weights_);
    const auto cluster = static_cast<std::int32_t>(k);
    if (place_of_[k] < 0) {
      const double envelope = log_weights_[k];
      visit(cluster, at_once, power, cluster_log_probs, members);
      if (!plain && uniform() >= std::exp(log_weights_[k] - envelope)) continue;
    }
    return draw_member(cluster, power, uniform);
  }
}

void ClusterSearch::visit(std::int32_t proposed, std::size_t at_once, double power,
                          std::span<const float> cluster_log_probs, const Members& members) {
  // The heaviest open ones come along: they are likely to be proposed next where this one is refused.
  asked_.assign(1, proposed);
  while (asked_.size() < at_once && !open_.empty()) {
    const std::int32_t next = pop_open();
    if (next != proposed && place_of_[static_cast<std::size_t>(next)] < 0) asked_.push_back(next);
  }
  visited_ += static_cast<std::int64_t>(asked_.size());
  const MemberRows rows = members(asked_);
  for (std::size_t i = 0; i < asked_.size(); ++i) {
    const auto k = static_cast<std::size_t>(asked_[i]);
    place_of_[k] = static_cast<std::ptrdiff_t>(rows_.size());
    float largest = -std::numeric_limits<float>::infinity();
    for (float x : rows.log_probs.subspan(i * rows.stride, size_of(asked_[i]))) {
      rows_.push_back(member_log_prob(x));
      largest = std::max(largest, rows_.back());
    }
    if (largest < std::numeric_limits<float>::lowest()) refuse_nan();
    double sum = 0;
    for (auto w = static_cast<std::size_t>(place_of_[k]); w < rows_.size(); ++w) {
      sum += std::exp(power * static_cast<double>(rows_[w] - largest));
    }
    log_weights_[k] =
        power * (static_cast<double>(cluster_log_probs[k]) + static_cast<double>(largest)) + std::log(sum);
  }
}

std::int32_t ClusterSearch::draw_member(std::int32_t cluster, double power, const std::function<double()>& uniform) {
  const auto k = static_cast<std::size_t>(cluster);
  const float* const row = rows_.data() + place_of_[k];
  member_weights_.resize(size_of(cluster));
  for (std::size_t w = 0; w < member_weights_.size(); ++w) {
    member_weights_[w] = power * static_cast<double>(row[w]);
  }
  const std::size_t w = draw(member_weights_, uniform, weights_);
  return members_[static_cast<std::size_t>(member_begin_[k]) + w];
}

}  // namespace vqlm
