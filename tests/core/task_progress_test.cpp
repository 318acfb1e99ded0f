#include "core/task_progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace vqlm {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

/// What a task of `length` writes to standard error.
std::string said_by(TaskProgress::Speaks speaks, milliseconds first, milliseconds length) {
  ::testing::internal::CaptureStderr();
  {
    TaskProgress progress("counting", speaks, true, {first, milliseconds(5)});
    progress.set(1, 4);
    std::this_thread::sleep_for(length);
  }
  return ::testing::internal::GetCapturedStderr();
}

TEST(TaskProgress, TellsHowFarItIsAndClearsItsLine) {
  const std::string said = said_by(TaskProgress::Speaks::yes, milliseconds(1), milliseconds(500));
  EXPECT_THAT(said, HasSubstr("\r\x1b[Kcounting: 25 %, "));
  EXPECT_TRUE(said.ends_with("\r\x1b[K"));
}

TEST(TaskProgress, IsSilentForAMomentsWorkAndOnOtherRanks) {
  EXPECT_EQ(said_by(TaskProgress::Speaks::yes, milliseconds(600'000), milliseconds(20)), "");
  EXPECT_EQ(said_by(TaskProgress::Speaks::no, milliseconds(1), milliseconds(50)), "");
}

TEST(TaskProgress, DurationsAreInTheLargestUnitsThatTell) {
  EXPECT_EQ(duration_text(12.4), "12 s");
  EXPECT_EQ(duration_text(249), "4 min 09 s");
  EXPECT_EQ(duration_text(11'100), "3 h 05 min");
}

}  // namespace
}  // namespace vqlm
