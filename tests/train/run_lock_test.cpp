// One job a run folder. tests/launch/stop_test.py does the same with processes, one of them killed.
#include "train/records/run_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "train/run/time_limit.h"

namespace vqlm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(RunLock, ASecondJobIsRefusedWithTheFirstOnesWords) {
  const TemporaryFolder folder;
  std::optional<RunLock> first(std::in_place, folder.path(), "host a, process 17");
  EXPECT_THAT(message_of([&] { RunLock(folder.path(), "host b, process 9"); }),
              AllOf(HasSubstr("run.dir = " + folder.path()), HasSubstr("(host a, process 17)")));
  first.reset();
  const RunLock second(folder.path(), "b");  // shorter than what stood there
  EXPECT_EQ(read_bytes(folder.file("run.lock")), "b\n");
}

TEST(RunLock, AFolderThatCannotBeWrittenIsNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of([&] { RunLock(folder.file("absent"), "a"); }), HasSubstr(folder.file("absent/run.lock")));
}

TEST(Duration, SecondsUnitsAndClocks) {
  EXPECT_EQ(parse_duration("3600"), 3600);
  EXPECT_EQ(parse_duration("30s"), 30);
  EXPECT_EQ(parse_duration("90m"), 5400);
  EXPECT_EQ(parse_duration("12h"), 43200);
  EXPECT_EQ(parse_duration("2d"), 172800);
  EXPECT_EQ(parse_duration("23:55:00"), 86100);
  EXPECT_EQ(parse_duration("100:00:01"), 360001);
  EXPECT_EQ(parse_duration("1-12:00:00"), 129600);
}

TEST(Duration, WhatIsNoTimeIsQuoted) {
  for (const char* text : {"", "0", "00:00:00", "-5", "1.5h", "90 m", "h", "10:00", "1:2:3:4", "00:60:00", "1-",
                           "1-90m", "soon", "1e9", "12345678901"}) {
    EXPECT_THAT(message_of([&] { parse_duration(text); }), HasSubstr(std::string("--time-limit ") + text)) << text;
  }
}

TEST(TimeLimit, NoneIsNeverReached) {
  EXPECT_GT(TimeLimit().seconds_left(), 1e9);
  const double left = TimeLimit(50).seconds_left();
  EXPECT_LE(left, 50);
  EXPECT_GT(left, 0);
}

}  // namespace
}  // namespace vqlm
