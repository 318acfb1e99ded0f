// Who slows a job down: time is told, no thread and no network.
#include "dist/watch/slow_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace vqlm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SlowRanksTest : public ::testing::Test {
 protected:
  SlowRanksTest() : slow_({"rank 0 on h1", "rank 1 on h1", "rank 2 on h2"}, SlowRanks::Clock::time_point()) {}

  /// Ten seconds of ten steps, of which each rank works so much on its own; what is said at their end.
  std::vector<std::string> window(const std::vector<double>& seconds_a_step, double round_trip = 0.0002,
                                  std::uint32_t lost = 0) {
    step_ += 10;
    for (std::size_t rank = 0; rank < seconds_a_step.size(); ++rank) {
      own_[rank] += 10 * seconds_a_step[rank];
      Beat beat{.rank = static_cast<std::int32_t>(rank), .seen = {}};
      beat.seen.step = step_;
      beat.seen.own_seconds = own_[rank];
      if (rank == 2) {
        beat.round_trip = round_trip;
        beat.lost = lost;
        beat.sent = 60;
      }
      slow_.beat(beat);
    }
    now_ += std::chrono::seconds(11);
    return slow_.judge(now_);
  }

  SlowRanks slow_;
  SlowRanks::Clock::time_point now_;
  std::int64_t step_ = 0;
  double own_[3] = {0, 0, 0};
};

TEST_F(SlowRanksTest, RanksThatWorkAlikeAreLeftAlone) {
  for (int i = 0; i < 20; ++i) EXPECT_THAT(window({0.1, 0.13, 0.16}), IsEmpty());
}

TEST_F(SlowRanksTest, ARankThatIsSlowForAWhileIsNamedOnceAndSoIsItsRecovery) {
  EXPECT_THAT(window({0.1, 0.1, 0.1}), IsEmpty());
  EXPECT_THAT(window({0.1, 0.1, 0.45}), IsEmpty());
  EXPECT_THAT(window({0.1, 0.1, 0.45}), IsEmpty());
  EXPECT_THAT(window({0.1, 0.1, 0.45}),
              ElementsAre(HasSubstr("rank 2 on h2: its own work takes 0.450 s a step, 4.5 times")));
  EXPECT_THAT(window({0.1, 0.1, 0.45}), IsEmpty());
  EXPECT_THAT(window({0.1, 0.1, 0.1}), ElementsAre(HasSubstr("rank 2 on h2: as quick as the others again")));
}

TEST_F(SlowRanksTest, ASlowWindowNowAndThenIsNoNews) {
  window({0.1, 0.1, 0.1});
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(window({0.1, 0.1, 0.45}), IsEmpty());
    EXPECT_THAT(window({0.1, 0.1, 0.1}), IsEmpty());
  }
}

// What lies before the first window, reading and counting, is another work than a step's.
TEST_F(SlowRanksTest, TheTimeBeforeTheFirstStepsCountsForNothing) {
  own_[0] = 1000;
  for (int i = 0; i < 5; ++i) EXPECT_THAT(window({0.1, 0.1, 0.1}), IsEmpty());
}

TEST_F(SlowRanksTest, ASlowOrLossyLinkIsNamedOnce) {
  EXPECT_THAT(window({0.1, 0.1, 0.1}, 0.2),
              ElementsAre(HasSubstr("rank 2 on h2: its link to rank 0 is slow: 200 ms there and back")));
  EXPECT_THAT(window({0.1, 0.1, 0.1}, 0.2), IsEmpty());
  EXPECT_THAT(window({0.1, 0.1, 0.1}), ElementsAre(HasSubstr("good again")));
  EXPECT_THAT(window({0.1, 0.1, 0.1}, 0.0002, 6), ElementsAre(HasSubstr("is slow: 10 % of the beats lost")));
}

TEST_F(SlowRanksTest, ALossyLinkThatIsSeenToBeSlowIsNews) {
  EXPECT_THAT(window({0.1, 0.1, 0.1}, 0.0002, 6), ElementsAre(HasSubstr("is slow: 10 % of the beats lost")));
  EXPECT_THAT(window({0.1, 0.1, 0.1}, 0.2, 6),
              ElementsAre(HasSubstr("is slow: 200 ms there and back, 10 % of the beats lost")));
  EXPECT_THAT(window({0.1, 0.1, 0.1}, 0.2, 6), IsEmpty());
}

TEST_F(SlowRanksTest, OneLostBeatIsNoLossyLink) {
  EXPECT_THAT(window({0.1, 0.1, 0.1}, 0.0002, 1), IsEmpty());
}

}  // namespace
}  // namespace vqlm
