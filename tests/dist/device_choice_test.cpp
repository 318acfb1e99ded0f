#include "dist/device_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/error.h"

namespace vqlm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(ChooseDevices, RankByRankWhereAllSeeAll) {
  const std::vector<std::string> node = {"0000:1b:00.0", "0000:43:00.0", "0000:52:00.0"};
  EXPECT_THAT(choose_devices({node}), ElementsAre(0));
  EXPECT_THAT(choose_devices({node, node, node}), ElementsAre(0, 1, 2));
}

TEST(ChooseDevices, WhatTheLauncherHandsOutIsItsRanks) {
  EXPECT_THAT(choose_devices({{"a"}, {"b"}, {"c"}}), ElementsAre(0, 0, 0));
  EXPECT_THAT(choose_devices({{"a", "b"}, {"c", "d"}}), ElementsAre(0, 0));
  EXPECT_THAT(choose_devices({{"a"}, {"a", "b"}}), ElementsAre(0, 1));
}

// The back end says better why there is none.
TEST(ChooseDevices, NoGpuIsNotThisFunctionsError) {
  EXPECT_THAT(choose_devices({{}, {"a"}, {}}), ElementsAre(0, 0, 0));
}

TEST(ChooseDevices, RefusesSharingWithTheCountsAndTheWayOut) {
  ASSERT_EQ(setenv("CUDA_VISIBLE_DEVICES", "0,5", 1), 0);
  EXPECT_THAT(
      [] {
        choose_devices({{"a", "b"}, {"a", "b"}, {"a", "b"}});
      },
      ThrowsMessage<UsageError>(
          ::testing::AllOf(HasSubstr("3 ranks on this node, 2 GPUs visible (CUDA_VISIBLE_DEVICES=0,5)"),
                           HasSubstr("number 2 sees (a, b)"), HasSubstr("at most 2 ranks a node"),
                           HasSubstr("--gpus-per-task=1"), HasSubstr("run.device"))));
  ASSERT_EQ(unsetenv("CUDA_VISIBLE_DEVICES"), 0);
  EXPECT_THAT(
      [] {
        choose_devices({{"a"}, {"a"}});
      },
      ThrowsMessage<UsageError>(HasSubstr("1 GPU visible (CUDA_VISIBLE_DEVICES not set)")));
}

TEST(ChooseDevices, NamesSlicesOfOneCard) {
  const std::string slice = std::string("0000:1b:00.0") + mig_mark;
  EXPECT_THAT(choose_devices({{slice}}), ElementsAre(0));
  EXPECT_THAT(
      [&] {
        choose_devices({{slice}, {slice}});
      },
      ThrowsMessage<UsageError>(::testing::AllOf(HasSubstr("2 ranks on this node"), HasSubstr("0000:1b:00.0+MIG"),
                                                 HasSubstr("MIG slices"), HasSubstr("nvidia-smi -mig 0"))));
}

}  // namespace
}  // namespace vqlm
