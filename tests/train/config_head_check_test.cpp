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
  EXPECT_THAT(resolve_error({"head.members=codes", "head.groups=48"}), HasSubstr("choose groups = 32"));
  EXPECT_EQ(resolve_error({"head.map=learned"}), "");  // of an old run, whose checkpoints hold the map
  EXPECT_EQ(resolve_error({"head.members=codes", "head.learning=ema"}), "");
  EXPECT_EQ(resolve_error({"head.member_mean=false", "head.learning=ema"}), "");
  EXPECT_THAT(resolve_error({"head.learning=ema"}), HasSubstr("set head.member_mean = false"));
  EXPECT_EQ(resolve_error({"model.tie_embeddings=true", "head.kind=dense"}), "");
  EXPECT_EQ(resolve_error({"head.kind=low_rank", "head.rank=256"}), "");  // d_model
  EXPECT_THAT(resolve_error({"head.kind=low_rank", "head.rank=257"}),
              AllOf(HasSubstr("head.rank = 257 with model.d_model = 256"), HasSubstr("choose 1 to 256")));
  EXPECT_THAT(usage_error([] { load_config({}, {"head.kind=low_rank", "head.rank=0"}); }),
              HasSubstr("head.rank = 0: out of range"));
  EXPECT_EQ(resolve_error({"head.kind=low_rank", "model.tie_embeddings=true"}), "");
  EXPECT_EQ(resolve_error({"head.kind=adaptive", "head.cutoffs=[1,999]"}), "");
  for (const char* wrong : {"[0,5]", "[5,5]", "[7,5]", "[5,1000]"})
    EXPECT_THAT(resolve_error({"head.kind=adaptive", std::string("head.cutoffs=") + wrong}),
                AllOf(HasSubstr("head.cutoffs = ["), HasSubstr("rise from 1 to at most 999")))
        << wrong;
  Config adaptive = load_config({}, {"head.kind=adaptive"});
  resolve(adaptive, 1000, 1);
  EXPECT_EQ(adaptive_of(adaptive.head)->cutoffs, (std::vector<std::int64_t>{125, 500}));
  adaptive = load_config({}, {"head.kind=adaptive"});
  adaptive.model.tie_embeddings = true;
  EXPECT_THAT(usage_error([&] { resolve(adaptive, 1000, 1); }),
              HasSubstr("model.tie_embeddings = true with head.kind = \"adaptive\""));
  EXPECT_EQ(resolve_error({"head.future=2"}), "");
  EXPECT_EQ(resolve_error({"head.kind=adaptive", "head.future=2"}), "");
  EXPECT_EQ(resolve_error({"head.future=7", "data.seq_len=8"}), "");
  EXPECT_THAT(resolve_error({"head.future_weight=0.5"}), HasSubstr("head.future_weight = 0.5 with head.future = 0"));
  EXPECT_THAT(resolve_error({"head.future=8", "data.seq_len=8"}),
              AllOf(HasSubstr("head.future = 8 with data.seq_len = 8"), HasSubstr("future <= 7")));
  for (const char* learning : {"commitment", "ema"}) {
    EXPECT_THAT(
        resolve_error({"head.member_mean=false", std::string("head.learning=") + learning, "head.future=1"}),
        AllOf(HasSubstr("head.future = 1 with head.learning = \"" + std::string(learning)), HasSubstr("gradient")));
  }
  EXPECT_THAT(usage_error([] { load_config({}, {"head.future=17"}); }), HasSubstr("head.future = 17: out of range"));
  EXPECT_THAT(usage_error([] { load_config({}, {"head.future_weight=0"}); }), HasSubstr("head.future_weight"));
  Config tied;  // as a program makes it: no file can say so
  tied.model.tie_embeddings = true;
  EXPECT_THAT(usage_error([&] { resolve(tied, 1000, 1); }), HasSubstr("tie"));
}

}  // namespace
}  // namespace vqlm
