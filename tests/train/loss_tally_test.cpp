// Bands of a vocabulary, and sums of losses that no order of additions changes.
#include "train/engine/loss_tally.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "core/rng.h"
#include "train/engine/frequency_bands.h"

namespace vqlm {
namespace {

TEST(FrequencyBands, AreCutByRankAndEndWithTheVocabulary) {
  std::vector<std::int64_t> counts(200, 0);
  counts[7] = 50;    // rank 1
  counts[150] = 40;  // rank 2; then ids 0, 1, ... of count 0
  for (const std::size_t vocab : {16U, 17U, 128U, 200U}) {
    SCOPED_TRACE("V = " + std::to_string(vocab));
    const FrequencyBands bands = make_frequency_bands({counts.begin(), counts.begin() + vocab});
    const std::size_t expected = vocab <= 16 ? 1 : vocab <= 128 ? 2 : 3;
    ASSERT_EQ(bands.bands.size(), expected);
    std::vector<std::int64_t> tokens(expected, 0);
    for (const std::uint8_t band : bands.band_of_token) ++tokens.at(band);
    std::int64_t next = 1;
    for (std::size_t i = 0; i < expected; ++i) {
      EXPECT_EQ(bands.bands[i].first_rank, next);
      EXPECT_EQ(tokens[i], bands.bands[i].last_rank - bands.bands[i].first_rank + 1);
      next = bands.bands[i].last_rank + 1;
    }
    EXPECT_EQ(next, static_cast<std::int64_t>(vocab) + 1);
  }
  const FrequencyBands bands = make_frequency_bands(counts);
  EXPECT_EQ(bands.band_of_token[7], 0);
  EXPECT_EQ(bands.band_of_token[150], 0);
  EXPECT_EQ(bands.band_of_token[14], 0);  // rank 16: ids 0 to 13 without 7 are 13, and those two
  EXPECT_EQ(bands.band_of_token[15], 1);
  EXPECT_EQ(bands.band_of_token[126], 1);
  EXPECT_EQ(bands.band_of_token[127], 2);
}

// Doubles would round: 2^-24 of a loss of 1e-6 is 2^-44, and 1e5 losses of up to 20 nats sum up to 2^21.
TEST(LossTally, AnyOrderGivesTheSameBits) {
  constexpr std::size_t n = 100000;
  const Philox rng(5, "losses");
  std::vector<float> losses(n);
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    losses[i] = std::exp(3 * rng.normal(i) - 2);
    sum += static_cast<double>(losses[i]);
  }
  LossTally forward(1, LossParts::cluster_and_member);
  LossTally backward(1, LossParts::cluster_and_member);
  for (std::size_t i = 0; i < n; ++i) forward.add(0, losses[i], 0.25f * losses[i]);
  for (std::size_t i = n; i-- > 0;) backward.add(0, losses[i], 0.25f * losses[i]);
  EXPECT_EQ(forward.means(0).nll, backward.means(0).nll);
  EXPECT_EQ(forward.means(0).member_nll, backward.means(0).member_nll);
  EXPECT_NEAR(forward.means(0).nll, sum / n, 2e-9);
  EXPECT_NEAR(*forward.means(0).cluster_nll, 0.25 * sum / n, 2e-9);
}

TEST(LossTally, TheTotalIsThatOfAllClasses) {
  LossTally tally(3, LossParts::whole);
  tally.add(0, 1.0f, 0.0f);
  tally.add(2, 2.5f, 0.0f);
  tally.add(2, 0.25f, 0.0f);
  EXPECT_EQ(tally.total().tokens, 3);
  EXPECT_EQ(tally.total().nll, 1.25);
  EXPECT_EQ(tally.means(2).nll, 1.375);
  EXPECT_EQ(tally.means(1).tokens, 0);
  EXPECT_TRUE(std::isnan(tally.means(1).nll));
  EXPECT_FALSE(tally.total().cluster_nll);
}

TEST(LossTally, ALossThatIsNoNumberIsNotHidden) {
  for (const float wild : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30f}) {
    LossTally tally(2, LossParts::cluster_and_member);
    tally.add(0, 1.0f, 0.5f);
    tally.add(1, wild, 0.5f);
    EXPECT_EQ(tally.means(0).nll, 1.0);
    EXPECT_TRUE(std::isnan(tally.means(1).nll));
    EXPECT_TRUE(std::isnan(tally.total().nll));
    EXPECT_EQ(tally.total().tokens, 2);
  }
}

}  // namespace
}  // namespace vqlm
