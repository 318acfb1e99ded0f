// What rank 0 concludes from beats: time is told, no thread and no network.
#include "dist/watch/heartbeat_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace vqlm {
namespace {

using std::chrono::duration;
using std::chrono::duration_cast;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class HeartbeatTableTest : public ::testing::Test {
 protected:
  HeartbeatTableTest() : table_({"h1", "h1", "h2", "h2"}, time(0)) {}

  static HeartbeatTable::Clock::time_point time(double seconds) {
    return HeartbeatTable::Clock::time_point() +
           duration_cast<HeartbeatTable::Clock::duration>(duration<double>(seconds));
  }
  /// A beat at `seconds` of a rank that has waited (or worked) for `unchanged` seconds.
  void beat(int rank, double seconds, bool waiting, double unchanged = 0, std::int64_t collectives = 7,
            std::string pause = "") {
    RankActivity::Seen seen{.step = 120,
                            .collectives = collectives,
                            .waiting = waiting,
                            .seconds = unchanged,
                            .last = "all_gather of group 'data'",
                            .pause = std::move(pause)};
    table_.beat({.rank = rank, .seen = std::move(seen)}, time(seconds));
  }
  void beat_of_all(double seconds, const std::vector<int>& without = {}) {
    for (int rank = 0; rank < table_.ranks(); ++rank) {
      if (std::ranges::find(without, rank) == without.end()) beat(rank, seconds, false);
    }
  }
  HeartbeatVerdict judge(double seconds) {
    return table_.judge({.heartbeat_seconds = 45, .timeout_seconds = 600}, time(seconds));
  }

  HeartbeatTable table_;
};

TEST_F(HeartbeatTableTest, RanksThatBeatAreLeftAlone) {
  for (int second = 0; second < 100; ++second) {
    beat_of_all(second);
    const HeartbeatVerdict verdict = judge(second + 0.5);
    EXPECT_THAT(verdict.failure, IsEmpty());
    EXPECT_THAT(verdict.warnings, IsEmpty());
  }
}

TEST_F(HeartbeatTableTest, ASilentRankIsNamedWithItsHostAndWhatItDid) {
  beat_of_all(0);
  beat_of_all(44, {3});
  EXPECT_THAT(judge(45).failure, IsEmpty());
  beat_of_all(46, {3});
  const std::string failure = judge(46).failure;
  EXPECT_THAT(failure, HasSubstr("rank 3 on h2: no sign of life for 46 s"));
  EXPECT_THAT(failure, HasSubstr("in step 120, after all_gather of group 'data'"));
}

TEST_F(HeartbeatTableTest, AHostOfWhichNoRankBeatsIsNamed) {
  beat_of_all(0);
  beat(3, 0.9, false);  // its last beat
  beat_of_all(45.5, {2, 3});
  EXPECT_THAT(judge(45.5).failure, HasSubstr("host h2: no sign of life from its 2 ranks (the first: 2)"));
}

TEST_F(HeartbeatTableTest, SilenceIsWarnedOfOnceBeforeAndSoIsItsEnd) {
  beat_of_all(0);
  beat_of_all(16, {3});
  EXPECT_THAT(judge(16).warnings, ::testing::ElementsAre(HasSubstr("rank 3 on h2: no sign of life for 16 s")));
  beat_of_all(20, {3});
  EXPECT_THAT(judge(20).warnings, IsEmpty());
  beat_of_all(30);
  EXPECT_THAT(judge(30).warnings, ::testing::ElementsAre(HasSubstr("rank 3 on h2: gives signs of life again")));
}

TEST_F(HeartbeatTableTest, NobodyIsToBlameForThisProcessOwnSleep) {
  beat_of_all(0);
  table_.forgive(std::chrono::seconds(60));
  EXPECT_THAT(judge(60.5).failure, IsEmpty());
  EXPECT_THAT(judge(60 + 46).failure, HasSubstr("no sign of life"));
}

TEST_F(HeartbeatTableTest, ARankThatIsDoneMayBeSilent) {
  beat_of_all(0);
  table_.beat({.rank = 3, .leaves = true, .seen = {}}, time(1));
  beat_of_all(100, {3});
  EXPECT_THAT(judge(100).failure, IsEmpty());
}

// A firewall drops every beat: the job may be well, and goes on unwatched.
TEST_F(HeartbeatTableTest, RanksThatWereNeverHeardAreToldOnceAndEndNothing) {
  beat_of_all(44, {2, 3});
  EXPECT_THAT(judge(44).warnings, IsEmpty());
  const HeartbeatVerdict verdict = judge(45.5);
  EXPECT_THAT(verdict.failure, IsEmpty());
  EXPECT_THAT(verdict.warnings,
              ::testing::ElementsAre(HasSubstr("no beat of 2 of 4 ranks has come (the first: rank 2 on h2)")));
  beat_of_all(46, {2, 3});
  EXPECT_THAT(judge(47).warnings, IsEmpty());
}

TEST_F(HeartbeatTableTest, TheRankThatTheOthersWaitForIsNamed) {
  for (int rank : {0, 2, 3}) beat(rank, 700, true, 601);
  beat(1, 700, false, 602);
  const std::string failure = judge(700).failure;
  EXPECT_THAT(failure, HasSubstr("rank 1 on h1: no progress for 602 s in its own work (in step 120, after all_gather"));
  EXPECT_THAT(failure, HasSubstr("3 of 4 ranks wait"));
  EXPECT_THAT(failure, HasSubstr("parallel.timeout_seconds = 600"));
}

TEST_F(HeartbeatTableTest, WhereAllWaitTheOneThatIsBehindIsNamed) {
  for (int rank : {0, 1, 3}) beat(rank, 700, true, 601, 8);
  beat(2, 700, true, 650, 7);
  EXPECT_THAT(judge(700).failure, HasSubstr("rank 2 on h2 is behind the others: in step 120, waiting in all_gather"));
}

TEST_F(HeartbeatTableTest, LongWorkThatIsAnnouncedIsWarnedOfOnce) {
  for (int rank : {0, 2, 3}) beat(rank, 700, true, 601, 7, "counting tokens");
  beat(1, 700, false, 602, 7, "counting tokens");
  const HeartbeatVerdict verdict = judge(700);
  EXPECT_THAT(verdict.failure, IsEmpty());
  EXPECT_THAT(verdict.warnings, ::testing::ElementsAre(HasSubstr("a rank is counting tokens")));
  EXPECT_THAT(judge(701).warnings, IsEmpty());
}

TEST_F(HeartbeatTableTest, LongWorkOfAllRanksIsNoFailure) {
  for (int rank : {0, 1, 2, 3}) beat(rank, 700, false, 650);
  EXPECT_THAT(judge(700).failure, IsEmpty());
}

// Their last beats still tell of the wait when the pause ends, and the time-out is theirs as a whole from then on.
TEST_F(HeartbeatTableTest, AfterAnnouncedWorkTheTimeCountsAnew) {
  for (int rank : {0, 2, 3}) beat(rank, 700, true, 601, 7, "removing old checkpoints");
  beat(1, 700, false, 602, 7, "removing old checkpoints");
  for (int rank : {0, 2, 3}) beat(rank, 701, true, 602);
  beat(1, 701, false, 603);
  EXPECT_THAT(judge(701).failure, IsEmpty());
  for (int rank : {0, 2, 3}) beat(rank, 1301, true, 1202);
  beat(1, 1301, false, 1203);
  EXPECT_THAT(judge(1301).failure, HasSubstr("rank 1 on h1"));
}

// What it did when it was last heard says nothing of what it does now.
TEST_F(HeartbeatTableTest, ARankThatIsNotHeardIsNotSaidToWait) {
  for (int rank : {0, 1, 3}) beat(rank, 700, false, 0);
  beat(2, 0, true, 599);
  EXPECT_THAT(table_.judge({.heartbeat_seconds = 0, .timeout_seconds = 600}, time(700)).failure, IsEmpty());
}

TEST_F(HeartbeatTableTest, ARankThatWasNeverHeardIsNotBehind) {
  for (int rank : {0, 1, 2}) beat(rank, 700, false, 0, rank == 1 ? 6 : 7);
  EXPECT_THAT(table_.who_is_behind(time(700)), HasSubstr("rank 1 on h1 is behind the others"));
}

TEST_F(HeartbeatTableTest, WithOtherLimitsTheTimeCountsAnew) {
  beat_of_all(0);
  table_.begin_anew(time(44));
  EXPECT_THAT(judge(50).failure, IsEmpty());
  EXPECT_THAT(judge(44 + 46).failure, HasSubstr("no sign of life from its 2 ranks (the first: 0) for 46 s"));
}

// Their collectives are watched on the device, and they are asked who is behind.
TEST_F(HeartbeatTableTest, DevicesAreNotTimedButCompared) {
  for (int rank = 0; rank < 4; ++rank) {
    RankActivity::Seen seen;
    seen.step = rank == 2 ? 119 : 120;
    seen.collectives = 40;
    seen.seconds = 700;
    seen.last = "all_reduce of group 'world'";
    seen.device = true;
    table_.beat({.rank = rank, .seen = seen}, time(700));
  }
  EXPECT_THAT(judge(700).failure, IsEmpty());
  EXPECT_THAT(table_.who_is_behind(time(700)),
              HasSubstr("rank 2 on h2 is behind the others: in step 119, having enqueued"));
}

TEST_F(HeartbeatTableTest, LimitsOfZeroAreOff) {
  for (int rank : {0, 1, 2}) beat(rank, 0, true, 601);
  beat(3, 0, false, 602);
  EXPECT_THAT(table_.judge({.heartbeat_seconds = 0, .timeout_seconds = 0}, time(5000)).failure, IsEmpty());
}

}  // namespace
}  // namespace vqlm
