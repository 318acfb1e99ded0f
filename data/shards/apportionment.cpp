#include "data/shards/apportionment.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace vqlm {

Apportionment::Apportionment(std::vector<std::uint64_t> shares) : had_(shares.size(), 0) {
  VQLM_ASSERT(!shares.empty() && shares.size() <= most_sources);
  std::uint64_t divisor = 0;
  for (const std::uint64_t share : shares) divisor = std::gcd(divisor, share);
  VQLM_ASSERT(divisor > 0);
  for (const std::uint64_t share : shares) {
    shares_.push_back(static_cast<std::int64_t>(share / divisor));
    period_ += share / divisor;
    if (share > 0) ++sources_;
  }
  VQLM_ASSERT(period_ <= largest_period);
}

void Apportionment::seek(std::uint64_t n) {
  if (n / period_ != periods_ || n % period_ < in_period_) {
    periods_ = n / period_;
    in_period_ = 0;
    std::ranges::fill(had_, 0);
  }
  while (in_period_ < n % period_) next();
}

std::size_t Apportionment::next() {
  // All in units of 1 / (P f), f = 2 k - 2: at most 2,000 P, and products of it with a share 2e17.
  const std::int64_t f = std::max<std::int64_t>(2 * sources_ - 2, 1);
  const auto p = static_cast<std::int64_t>(period_);
  const auto n = static_cast<std::int64_t>(in_period_) + 1;
  std::size_t chosen = shares_.size();
  std::int64_t chosen_slack = 0;
  for (std::size_t s = 0; s < shares_.size(); ++s) {
    const std::int64_t share = shares_[s];
    if (share == 0) continue;
    const std::int64_t lag = f * (share * n - p * had_[s]);
    if (sources_ > 1 && lag < p) continue;       // a turn now would be more than the share allows
    const std::int64_t slack = p * f - p - lag;  // divided by its share: when its turn must have come
    if (chosen == shares_.size() || slack * shares_[chosen] < chosen_slack * share) {
      chosen = s;
      chosen_slack = slack;
    }
  }
  VQLM_ASSERT(chosen < shares_.size());
  ++had_[chosen];
  if (++in_period_ == period_) {
    ++periods_;
    in_period_ = 0;
    std::ranges::fill(had_, 0);
  }
  return chosen;
}

std::vector<std::uint64_t> Apportionment::counts() const {
  std::vector<std::uint64_t> counts;
  for (std::size_t s = 0; s < shares_.size(); ++s) counts.push_back(count(s));
  return counts;
}

std::uint64_t Apportionment::turns_until(std::size_t source, std::uint64_t count) {
  VQLM_ASSERT(shares_[source] > 0);
  seek(count / static_cast<std::uint64_t>(shares_[source]) * period_);  // whole periods
  while (this->count(source) <= count) next();
  return turns();
}

}  // namespace vqlm
