// What the head's keys are checked for, alone and against each other, and what a head's parameters are counted as.
#include "train/config/config_head_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/config_errors.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(ConfigHeadCheck, KeysAreCheckedAgainstEachOther) {
  EXPECT_THAT(resolve_error({"head.clusters=1001"}), HasSubstr("clusters <= 1000"));
  EXPECT_THAT(resolve_error({"head.clusters=16", "head.own_tokens=16"}), HasSubstr("own_tokens <= 15"));
  EXPECT_EQ(resolve_error({"head.clusters=16", "head.own_tokens=15"}), "");
  EXPECT_THAT(resolve_error({"head.groups=48"}), HasSubstr("choose groups = 32"));
  EXPECT_EQ(resolve_error({"head.map=learned"}), "");  // of an old run, whose checkpoints hold the map
  EXPECT_EQ(resolve_error({"head.groups=48", "head.members=embedding"}), "");  // no codes there
  EXPECT_EQ(resolve_error({"head.members=embedding", "head.member_mean=true", "head.input_codes=true"}), "");
  EXPECT_EQ(resolve_error({"head.input_codes=true"}), "");
  EXPECT_THAT(resolve_error({"head.input_codes=true", "head.kind=dense"}), HasSubstr("has no clusters"));
  EXPECT_THAT(resolve_error({"head.member_mean=true", "head.kind=dense"}), HasSubstr("has no clusters"));
  EXPECT_THAT(resolve_error({"head.member_mean=true"}), HasSubstr("set head.members = \"embedding\""));
  EXPECT_THAT(resolve_error({"head.members=embedding", "head.member_mean=true", "head.learning=ema"}),
              HasSubstr("head.learning = \"gradient\""));
  EXPECT_THAT(resolve_error({"model.tie_embeddings=true"}), HasSubstr("tie"));
  EXPECT_EQ(resolve_error({"model.tie_embeddings=true", "head.kind=dense", "head.clusters=5000"}), "");
  EXPECT_THAT(resolve_error({"head.learning=ema", "head.kind=dense"}),
              AllOf(HasSubstr("head.learning = \"ema\""), HasSubstr("head.kind = \"vq\"")));
  EXPECT_EQ(resolve_error({"head.learning=ema"}), "");
  EXPECT_THAT(override_error("head.ema_decay=1"), HasSubstr("head.ema_decay"));
}

}  // namespace
}  // namespace vqlm
