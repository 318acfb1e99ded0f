// Which dead codes take whose averages.
#include "core/model/head/code_averages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace vqlm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::int64_t> codes_of(const std::vector<RevivedCode>& revived) {
  std::vector<std::int64_t> codes;
  for (const RevivedCode& pair : revived) codes.push_back(pair.code);
  return codes;
}

TEST(ChooseRevived, TakesCodesBelowTheShareOfTheMeanCount) {
  // Mean 4: the threshold of a quarter is 1, and 1 itself is not below it.
  const std::vector<float> counts = {0.0f, 1.0f, 0.999f, 17.001f, 1.0f};
  EXPECT_THAT(codes_of(choose_revived(counts, 0.25, 1, 1)), ElementsAre(0, 2));
  EXPECT_THAT(choose_revived(counts, 0, 1, 1), IsEmpty());
  EXPECT_THAT(choose_revived({0, 0, 0}, 0.25, 1, 1), IsEmpty());  // nothing was seen: nobody can give
  EXPECT_THAT(choose_revived({5}, 0.5, 1, 1), IsEmpty());
}

TEST(ChooseRevived, DonorsAreLivingAndTheSameForTheSameSeedStepAndCode) {
  std::vector<float> counts(100, 0.0f);
  for (std::size_t k = 0; k < counts.size(); k += 10) counts[k] = static_cast<float>(k + 1);
  const auto revived = choose_revived(counts, 0.01, 3, 7);
  EXPECT_EQ(revived.size(), 90u);
  for (const RevivedCode& pair : revived) EXPECT_GT(counts[static_cast<std::size_t>(pair.donor)], 0.0f);
  EXPECT_EQ(choose_revived(counts, 0.01, 3, 7), revived);
  EXPECT_NE(choose_revived(counts, 0.01, 3, 8), revived);
  EXPECT_NE(choose_revived(counts, 0.01, 4, 7), revived);
}

TEST(ChooseRevived, DonorsAreDrawnByTheirCounts) {
  // Three living codes with 1, 2 and 5 of 8 parts, the last of the codes dead and each in between.
  std::vector<float> counts(8000, 0.0f);
  const std::vector<std::size_t> living = {10, 4000, 7998};
  for (std::size_t i = 0; i < 3; ++i) counts[living[i]] = std::vector<float>{1, 2, 5}[i];
  std::vector<double> drawn(3, 0.0);
  for (const RevivedCode& pair : choose_revived(counts, 0.5, 11, 2)) {
    const auto place = std::find(living.begin(), living.end(), static_cast<std::size_t>(pair.donor));
    ASSERT_NE(place, living.end());
    drawn[static_cast<std::size_t>(place - living.begin())] += 1;
  }
  const double total = 8000 - 3;
  double chi_square = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const double expected = total * std::vector<double>{1, 2, 5}[i] / 8;
    chi_square += (drawn[i] - expected) * (drawn[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 13.8);  // two degrees of freedom: exceeded once in 1,000 seeds, and the seed is fixed
}

}  // namespace
}  // namespace vqlm
