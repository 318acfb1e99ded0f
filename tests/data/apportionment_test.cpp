#include "data/shards/apportionment.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/rng.h"

namespace vqlm {
namespace {

/// Follows `turns` turns: the largest distance of a count from its share, over all prefixes, and over all windows (the
/// spread of those distances).
struct Distances {
  double prefix = 0;
  double window = 0;
};
Distances follow(const std::vector<std::uint64_t>& shares, std::uint64_t turns) {
  Apportionment order(shares);
  double all = 0;
  for (const std::uint64_t share : shares) all += static_cast<double>(share);
  std::vector<double> lowest(shares.size(), 0), highest(shares.size(), 0);
  std::vector<std::uint64_t> had(shares.size(), 0);
  Distances found;
  for (std::uint64_t n = 1; n <= turns; ++n) {
    ++had[order.next()];
    for (std::size_t s = 0; s < shares.size(); ++s) {
      const double off = static_cast<double>(had[s]) - static_cast<double>(n) * static_cast<double>(shares[s]) / all;
      lowest[s] = std::min(lowest[s], off);
      highest[s] = std::max(highest[s], off);
      found.prefix = std::max(found.prefix, std::abs(off));
      found.window = std::max(found.window, highest[s] - lowest[s]);
    }
  }
  EXPECT_EQ(order.counts(), had);
  EXPECT_EQ(order.turns(), turns);
  return found;
}

TEST(Apportionment, EveryPrefixIsWithinOneAndEveryWindowWithinTwo) {
  const Philox rng(5, "shares");
  std::uint64_t drawn = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<std::uint64_t> shares(1 + rng.below(drawn++, 9));
    // Shares of all sizes beside each other, some of them nothing.
    for (auto& share : shares) {
      const std::uint64_t bits = 1 + rng.below(drawn++, 12);
      share = rng.below(drawn++, std::uint64_t{1} << bits);
    }
    shares[0] += 1;
    std::string names;
    for (const std::uint64_t share : shares) names += " " + std::to_string(share);
    const Distances found = follow(shares, 5000);
    EXPECT_LT(found.prefix, 1 + 1e-9) << names;
    EXPECT_LT(found.window, 2 + 1e-9) << names;
  }
}

TEST(Apportionment, TheSharesOfTheBound) {
  // k equal sources: the last one waits k - 1 turns, 1 - 1/k of a sample behind.
  for (const std::size_t k : {2U, 3U, 10U}) {
    EXPECT_NEAR(follow(std::vector<std::uint64_t>(k, 7), 100).prefix, 1 - 1.0 / static_cast<double>(k), 1e-9);
  }
  EXPECT_LT(follow({999'999, 1}, 2'500'000).prefix, 1);
}

TEST(Apportionment, SeekIsTheSameAsFollowing) {
  const std::vector<std::uint64_t> shares = {700'000, 200'000, 100'001, 0, 33'333};
  Apportionment followed(shares);
  Apportionment sought(shares);
  EXPECT_EQ(followed.period(), 1'033'334U);
  for (const std::uint64_t n : {0ULL, 1ULL, 17ULL, 5000ULL, 1'033'334ULL, 1'033'340ULL, 3'000'000ULL}) {
    while (followed.turns() < n) followed.next();
    sought.seek(n + 123);
    sought.seek(n);  // also backwards
    EXPECT_EQ(sought.counts(), followed.counts()) << n;
    Apportionment copy = followed;
    EXPECT_EQ(sought.next(), copy.next()) << n;
  }
}

TEST(Apportionment, CommonDivisorsAreTakenOut) {
  EXPECT_EQ(Apportionment({700'000, 300'000}).period(), 10U);
  EXPECT_EQ(Apportionment({5}).period(), 1U);
}

}  // namespace
}  // namespace vqlm
