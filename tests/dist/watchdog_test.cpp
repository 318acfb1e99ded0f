#include "dist/watch/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "core/error.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto long_enough = std::chrono::seconds(20);  // of a test that would fail

/// A watchdog over one group whose error and abort the test sets.
struct Watched {
  explicit Watched(double timeout_seconds)
      : dog({.rank = 3, .timeout_seconds = timeout_seconds, .on_failure = [this](const std::string& message) {
               failure.set_value(message);
             }}) {
    group = dog.add_group({.name = "data",
                           .rank = 1,
                           .size = 2,
                           .error = [this] { return failing ? std::string("cable pulled") : std::string(); },
                           .abort = [this] { aborted = true; }});
  }
  std::string message() {
    auto future = failure.get_future();
    return future.wait_for(long_enough) == std::future_status::ready ? future.get() : "nothing happened";
  }

  std::promise<std::string> failure;
  std::atomic<bool> failing = false;
  std::atomic<bool> aborted = false;
  int group = 0;
  Watchdog dog;  // last: its thread calls the others
};

const std::function<bool()> never = [] { return false; };
const std::function<bool()> at_once = [] { return true; };

TEST(Watchdog, NamesTheOldestCollectiveThatIsOverdue) {
  Watched watched(0.2);
  watched.dog.begin(watched.group, "all_gather", DType::bf16, 7, at_once);
  watched.dog.begin(watched.group, "reduce_scatter", DType::f32, 1000, never);
  watched.dog.begin(watched.group, "all_reduce", DType::f64, 1, never);
  const std::string message = watched.message();
  EXPECT_THAT(message, HasSubstr("reduce_scatter #2 of group 'data' (rank 1 of 2, world rank 3), 1000 f32"));
  EXPECT_THAT(message, HasSubstr("parallel.timeout_seconds = 0.2"));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  EXPECT_TRUE(watched.aborted);
  EXPECT_THROW(watched.dog.throw_if_failed(), Error);
}

TEST(Watchdog, SaysHowFarEachGroupCameAndThatGraphsMayHideTheHang) {
  Watched watched(0.2);
  const int tensor = watched.dog.add_group({"tensor", 0, 2, [] { return std::string(); }, [] {}});
  watched.dog.begin(watched.group, "all_gather", DType::f32, 7, at_once);
  watched.dog.begin(tensor, "all_reduce", DType::f32, 7, nullptr);  // captured
  watched.dog.begin(watched.group, "all_reduce", DType::f64, 1, never);
  const std::string message = watched.message();
  EXPECT_THAT(message, HasSubstr("lowest last completed number"));
  EXPECT_THAT(message, HasSubstr("one of the 1 collectives captured into CUDA graphs"));
  EXPECT_THAT(message, HasSubstr("run.cuda_graphs=false"));
  const std::string dump = watched.dog.dump();
  EXPECT_EQ(dump.substr(0, dump.find('\n')),
            "rank 3: group 'data': last completed #1 of 2; group 'tensor': last completed #0 of 1");
}

TEST(Watchdog, APauseSuspendsTimeOutsAndTheWholeTimeOutFollowsIt) {
  using std::chrono::steady_clock;
  Watched watched(0.2);
  auto future = watched.failure.get_future();
  auto pause = watched.dog.pause("counting tokens");
  watched.dog.begin(watched.group, "broadcast", DType::u8, 1, never);
  {
    const auto inner = watched.dog.pause("hashing");
    EXPECT_EQ(future.wait_for(std::chrono::milliseconds(500)), std::future_status::timeout);
  }
  EXPECT_EQ(future.wait_for(std::chrono::milliseconds(500)), std::future_status::timeout);
  const auto end = steady_clock::now();
  pause.reset();
  ASSERT_EQ(future.wait_for(long_enough), std::future_status::ready);
  EXPECT_GE(steady_clock::now() - end, std::chrono::milliseconds(200));
  EXPECT_THAT(future.get(), HasSubstr("broadcast #1"));
}

TEST(Watchdog, AnAsynchronousErrorEndsTheJobWithoutATimeOut) {
  Watched watched(0);
  watched.dog.begin(watched.group, "all_to_all", DType::bf16, 64, never);
  EXPECT_NO_THROW(watched.dog.throw_if_failed());
  watched.failing = true;
  const std::string message = watched.message();
  EXPECT_THAT(message, HasSubstr("all_to_all #1 of group 'data' (rank 1 of 2, world rank 3)"));
  EXPECT_THAT(message, HasSubstr("cable pulled"));
  EXPECT_TRUE(watched.aborted);
}

TEST(Watchdog, LeavesFinishedCapturedAndForgottenCollectivesAlone) {
  std::atomic<int> failures = 0;
  std::atomic<int> asked = 0;
  {
    Watchdog dog({.rank = 0, .timeout_seconds = 0.1, .on_failure = [&](const std::string&) { ++failures; }});
    const auto quiet = [] { return std::string(); };
    const int kept = dog.add_group({"tensor", 0, 2, quiet, [] {}});
    const int gone = dog.add_group({"data", 0, 2, quiet, [] {}});
    dog.begin(kept, "all_gather", DType::f32, 1, [&] { return ++asked > 2; });
    dog.begin(kept, "all_gather", DType::f32, 1, nullptr);  // captured
    dog.begin(gone, "all_gather", DType::f32, 1, never);
    dog.remove_group(gone);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    std::this_thread::sleep_until(deadline);
    EXPECT_THAT(dog.dump(), HasSubstr("#2 of group 'tensor' (rank 0 of 2, world rank 0), 1 f32: captured"));
    EXPECT_THAT(dog.dump(), Not(HasSubstr("'data'")));
  }
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(asked, 3);
}

TEST(Watchdog, CountsEachGroupsCollectivesFromOne) {
  Watched watched(0);
  const int other = watched.dog.add_group({"tensor", 0, 1, [] { return std::string(); }, [] {}});
  EXPECT_EQ(watched.dog.begin(watched.group, "broadcast", DType::u8, 1, at_once), 1);
  EXPECT_EQ(watched.dog.begin(other, "broadcast", DType::u8, 1, at_once), 1);
  EXPECT_EQ(watched.dog.begin(watched.group, "broadcast", DType::u8, 1, at_once), 2);
}

// The host may enqueue far more than 64 calls behind one that never ends: that one is what the message must name.
TEST(Watchdog, KeepsTheUnfinishedAndTheLast64) {
  Watched watched(0);
  watched.dog.begin(watched.group, "broadcast", DType::u8, 1, nullptr);
  for (int call = 2; call <= 100; ++call) watched.dog.begin(watched.group, "all_reduce", DType::f32, call, nullptr);
  EXPECT_THAT(watched.dog.dump(), Not(HasSubstr("#36 ")));
  EXPECT_THAT(watched.dog.dump(), HasSubstr("#37 "));
  watched.dog.begin(watched.group, "all_gather", DType::f32, 1, never);
  for (int call = 102; call <= 300; ++call) watched.dog.begin(watched.group, "all_reduce", DType::f32, call, never);
  EXPECT_THAT(watched.dog.dump(), HasSubstr("all_gather #101 "));
  EXPECT_THAT(watched.dog.dump(), HasSubstr("and 72 later ones"));
}

}  // namespace
}  // namespace vqlm
