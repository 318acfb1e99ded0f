// Heartbeats of ranks that are threads of this process: datagrams over the loopback, no MPI.
#include "dist/watch/heartbeat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "dist/watch/beat.h"

namespace vqlm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

TEST(BeatTest, TravelsAsADatagramOfItsJob) {
  Beat beat{
      .rank = 3, .number = 17, .leaves = true, .address = 2, .seen = {}, .round_trip = 0.25, .lost = 4, .sent = 60};
  beat.seen = {.step = 120,
               .collectives = 7,
               .waiting = true,
               .seconds = 1.5,
               .last = "all_gather of group 'data'",
               .pause = std::string(100, 'p'),
               .own_seconds = 2.5,
               .device = true};
  const auto datagram = datagram_of(42, beat);
  const auto got = beat_of(42, datagram);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->rank, 3);
  EXPECT_EQ(got->number, 17u);
  EXPECT_TRUE(got->leaves);
  EXPECT_EQ(got->address, 2);
  EXPECT_EQ(got->seen.step, 120);
  EXPECT_EQ(got->seen.collectives, 7);
  EXPECT_TRUE(got->seen.waiting);
  EXPECT_TRUE(got->seen.device);
  EXPECT_EQ(got->seen.seconds, 1.5);
  EXPECT_EQ(got->seen.own_seconds, 2.5);
  EXPECT_EQ(got->seen.last, "all_gather of group 'data'");
  EXPECT_EQ(got->seen.pause, std::string(64, 'p'));
  EXPECT_EQ(got->round_trip, 0.25);
  EXPECT_EQ(got->lost, 4u);
  EXPECT_EQ(got->sent, 60u);
  EXPECT_FALSE(beat_of(43, datagram)) << "of another job";
  EXPECT_FALSE(answer_of(42, datagram));
  EXPECT_FALSE(beat_of(42, std::span(datagram).first(datagram.size() - 1)));
}

TEST(AnswerTest, TravelsAsADatagramOfItsJob) {
  const auto datagram =
      datagram_of(42, Answer{.number = 9, .address = 1, .fails = true, .text = std::string(600, 't')});
  const auto got = answer_of(42, datagram);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->number, 9u);
  EXPECT_EQ(got->address, 1);
  EXPECT_TRUE(got->fails);
  EXPECT_FALSE(got->leaves);
  EXPECT_EQ(got->text, std::string(501, 't'));
  EXPECT_FALSE(answer_of(7, datagram));
  EXPECT_FALSE(beat_of(42, datagram));
}

/// Ranks of one job in this process.
class Job {
 public:
  explicit Job(int ranks, HeartbeatLimits limits) : texts_(static_cast<std::size_t>(ranks)), meeting_(ranks) {
    for (int rank = 0; rank < ranks; ++rank) activities.push_back(std::make_shared<RankActivity>());
    hearts.resize(static_cast<std::size_t>(ranks));
    std::vector<std::thread> starts;
    for (int rank = 0; rank < ranks; ++rank) starts.emplace_back([this, rank, limits] { start(rank, limits); });
    for (std::thread& thread : starts) thread.join();
  }
  ~Job() {
    for (auto& heart : hearts) heart.reset();
  }

  /// What the first failure says, or "" after the time.
  std::string failure(std::chrono::milliseconds wait) {
    return failure_.wait_for(wait) == std::future_status::ready ? failure_.get() : "";
  }

  std::vector<std::shared_ptr<RankActivity>> activities;
  std::vector<std::unique_ptr<Heartbeat>> hearts;

 private:
  void start(int rank, HeartbeatLimits limits) {
    const auto gather = [this, rank](const std::string& text) {
      texts_[static_cast<std::size_t>(rank)] = text;
      meeting_.arrive_and_wait();
      return texts_;
    };
    Heartbeat::Options options{
        .rank = rank, .host = "h" + std::to_string(rank), .limits = limits, .interface = "", .on_failure = {}};
    options.on_failure = [this](const std::string& message) {
      if (!told_.exchange(true)) failed_.set_value(message);
    };
    hearts[static_cast<std::size_t>(rank)] =
        std::make_unique<Heartbeat>(gather, activities[static_cast<std::size_t>(rank)], std::move(options));
  }

  std::vector<std::string> texts_;
  std::barrier<> meeting_;
  std::atomic<bool> told_ = false;
  std::promise<std::string> failed_;
  std::shared_future<std::string> failure_ = failed_.get_future().share();
};

TEST(HeartbeatTest, RanksThatLiveGoOnAndLeaveInAnyOrder) {
  for (const int first : {0, 2}) {
    Job job(3, {.heartbeat_seconds = 4, .timeout_seconds = 0});
    EXPECT_EQ(job.hearts[1]->hosts(), (std::vector<std::string>{"h0", "h1", "h2"}));
    std::this_thread::sleep_for(400ms);
    job.hearts[static_cast<std::size_t>(first)].reset();
    EXPECT_EQ(job.failure(6s), "") << "after rank " << first << " left";
  }
}

// Their processes are alive: what they do not do is named.
TEST(HeartbeatTest, TheRankThatKeepsOthersWaitingEndsTheJob) {
  Job job(3, {.heartbeat_seconds = 30, .timeout_seconds = 1});
  for (const int rank : {0, 1, 2}) job.activities[static_cast<std::size_t>(rank)]->begin_step(5);
  const auto first = job.activities[0]->enter("all_reduce", "world");
  const auto last = job.activities[2]->enter("all_reduce", "world");
  const std::string failure = job.failure(20s);
  EXPECT_THAT(failure, HasSubstr("rank 1 on h1: no progress for"));
  EXPECT_THAT(failure, HasSubstr("in step 5"));
  EXPECT_THAT(failure, HasSubstr("2 of 3 ranks wait"));
}

TEST(HeartbeatTest, LimitsCanBeSetLater) {
  Job job(2, {.heartbeat_seconds = 30, .timeout_seconds = 0});
  const auto inside = job.activities[0]->enter("barrier", "world");
  EXPECT_EQ(job.failure(1500ms), "");
  for (const auto& heart : job.hearts) heart->set_limits({.heartbeat_seconds = 30, .timeout_seconds = 1});
  EXPECT_THAT(job.failure(20s), HasSubstr("rank 1 on h1"));
}

TEST(HeartbeatTest, EveryRankLearnsWhoIsBehind) {
  Job job(2, {.heartbeat_seconds = 2, .timeout_seconds = 0});
  job.activities[0]->enqueued("all_reduce", "world");
  std::string told;
  for (int i = 0; i < 100 && told.empty(); ++i) {
    std::this_thread::sleep_for(100ms);
    told = job.hearts[1]->who_is_behind();
  }
  EXPECT_THAT(told, HasSubstr("rank 1 on h1 is behind the others: before the first step"));
  job.activities[1]->enqueued("all_reduce", "world");
  for (int i = 0; i < 100 && !told.empty(); ++i) {
    std::this_thread::sleep_for(100ms);
    told = job.hearts[1]->who_is_behind();
  }
  EXPECT_EQ(told, "");
}

}  // namespace
}  // namespace vqlm
