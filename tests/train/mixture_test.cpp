// Sources of text with weights: what a configuration says of them, and how a run goes on with others.
#include "train/run/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* head = "[model]\nd_model = 64\nn_heads = 4\n[train]\nglobal_batch = 8\n";

class MixtureConfig : public testing::Test {
 protected:
  Config read(const std::string& tables, const std::vector<std::string>& overrides = {}) {
    write_bytes(folder_.file("c.toml"), head + tables);
    Config config = load_config(folder_.file("c.toml"), overrides);
    resolve(config, 100'000, 1);
    return config;
  }
  std::string refusal(const std::string& tables, const std::vector<std::string>& overrides = {}) {
    return message_of([&] { mixture_stages(read(tables, overrides), {}); });
  }
  TemporaryFolder folder_;
};

const std::string web = "[[data.mix]]\nname = \"web\"\ntrain = \"w/*.h5\"\nweight = 0.7\n";
const std::string code = "[[data.mix]]\nname = \"code\"\ntrain = \"c/*.h5\"\nweight = 0.3\n";

TEST_F(MixtureConfig, StagesBeginAtTheirSteps) {
  const Config config = read(web + code +
                             "[[data.mix]]\nname = \"math\"\ntrain = \"m/*.h5\"\nweight = 1\nfrom_step = 11\n"
                             "[[data.mix]]\nname = \"code\"\nweight = 0\nfrom_step = 21\n");
  const auto sources = training_sources(config.data);
  ASSERT_EQ(sources.size(), 3U);
  EXPECT_EQ(sources[2].name, "math");
  EXPECT_EQ(sources[1].glob, "c/*.h5");
  const auto stages = mixture_stages(config, {});
  ASSERT_EQ(stages.size(), 3U);
  EXPECT_EQ(stages[1].first_sample, 80U);
  EXPECT_EQ(stages[2].first_sample, 160U);
  EXPECT_EQ(stages[0].shares, (std::vector<std::uint64_t>{700'000, 300'000, 0}));
  EXPECT_EQ(stages[1].shares, (std::vector<std::uint64_t>{700'000, 300'000, 1'000'000}));
  EXPECT_EQ(stages[2].shares, (std::vector<std::uint64_t>{700'000, 0, 1'000'000}));
}

TEST_F(MixtureConfig, IsWrittenAndReadBack) {
  const Config config = read(web + code + "[[data.heldout]]\nname = \"news\"\nshards = \"h \\\"1\\\"/*.h5\"\n",
                             {"data.mix.web.weight=0.123456", "data.mix.math.train=m/*.h5", "data.mix.math.weight=2",
                              "data.heldout.code=hc/*.h5"});
  write_bytes(folder_.file("again.toml"), to_toml(config));
  const Config again = load_config(folder_.file("again.toml"));
  EXPECT_EQ(again.data.mix, config.data.mix);
  EXPECT_EQ(again.data.heldout_sets, config.data.heldout_sets);
  ASSERT_EQ(config.data.mix.size(), 3U);
  EXPECT_EQ(config.data.mix[0].weight, 0.123456);
  EXPECT_EQ(config.data.heldout_sets[1].shards, "hc/*.h5");
  EXPECT_EQ(config.data.heldout_sets[0].shards, "h \"1\"/*.h5");
}

TEST_F(MixtureConfig, WhatDoesNotGoTogetherIsRefusedByName) {
  EXPECT_THAT(refusal(web + "weigth = 1\n"), AllOf(HasSubstr("c.toml:10"), HasSubstr("weigth"), HasSubstr("weight")));
  EXPECT_THAT(refusal("[[data.mix]]\ntrain = \"x\"\n"), AllOf(HasSubstr("c.toml:6"), HasSubstr("without a name")));
  EXPECT_THAT(refusal("[[data.mix]]\nname = \"a b\"\ntrain = \"x\"\nweight = 1\n"), HasSubstr("a b"));
  EXPECT_THAT(refusal("[[data.mix]]\nname = \"a\"\nweight = 1\n"), HasSubstr("a has no shards"));
  EXPECT_THAT(refusal(web + web), HasSubstr("web has two entries from step 1"));
  EXPECT_THAT(refusal("[data]\ntrain = \"t/*.h5\"\n" + web), AllOf(HasSubstr("t/*.h5"), HasSubstr("choose one")));
  EXPECT_THAT(refusal(web, {"data.mix.web.weight=0"}), HasSubstr("no source has a weight from step 1"));
  EXPECT_THAT(refusal(web, {"data.mix.web.weight=-1"}), HasSubstr("weight -1"));
  EXPECT_THAT(refusal(web, {"data.mix.web.weight=nan"}), HasSubstr("weight nan"));
  EXPECT_THAT(refusal(web, {"data.mix.web.weight=0.12345678"}), HasSubstr("at most six decimals"));
  EXPECT_THAT(refusal(web, {"data.mix.web.weight=much"}), AllOf(HasSubstr("much"), HasSubstr("number")));
  EXPECT_THAT(refusal(web, {"data.mix.web.wait=1"}), HasSubstr("data.mix.NAME.weight"));
  EXPECT_THAT(refusal(web, {"data.heldout.a.weight=3"}), HasSubstr("data.heldout.NAME=GLOB"));
  EXPECT_THAT(refusal(web + code, {"data.mix.web.weight=33.333333"}), HasSubstr("round them"));
  EXPECT_THAT(refusal(web + "[[data.mix]]\nname = \"web\"\nweight = 0\nfrom_step = 5\n"),
              AllOf(HasSubstr("sample 32"), HasSubstr("all weights are 0")));
  EXPECT_THAT(refusal(web + "[[data.heldout]]\nname = \"a\"\nshards = \"x\"\n", {"data.heldout=y", "data.heldout.b=z"}),
              AllOf(HasSubstr("data.heldout = y"), HasSubstr("choose one")));
  EXPECT_THAT(refusal(""), HasSubstr("data.train is empty"));
}

TEST_F(MixtureConfig, TheCommandLineOverrulesTheOtherForm) {
  const std::string sets = "[[data.heldout]]\nname = \"a\"\nshards = \"x\"\n";
  const Config one = read(web + code + sets, {"data.train=t/*.h5", "data.heldout=y"});
  EXPECT_TRUE(one.data.mix.empty() && one.data.heldout_sets.empty());
  EXPECT_EQ(one.data.train + one.data.heldout, "t/*.h5y");
  const Config tables = read("[data]\ntrain = \"t\"\nheldout = \"h\"\n",
                             {"data.mix.b.train=c", "data.mix.b.weight=1", "data.heldout.b=z"});
  EXPECT_EQ(tables.data.train + tables.data.heldout, "");
  EXPECT_EQ(tables.data.mix.size() + tables.data.heldout_sets.size(), 2U);
}

TEST_F(MixtureConfig, OverridesOfASourceWithStages) {
  const std::string stages = web +
                             "[[data.mix]]\nname = \"math\"\ntrain = \"m/*.h5\"\nweight = 0\n"
                             "[[data.mix]]\nname = \"math\"\nweight = 1\nfrom_step = 9\n";
  // A weight alone stays away from stages without one.
  const auto weighed = read(stages, {"data.mix.math.weight=2"}).data.mix;
  ASSERT_EQ(weighed.size(), 3U);
  EXPECT_EQ(weighed[1].weight, 0);
  EXPECT_EQ(weighed[2].weight, 2);
  // With a step it is the source's one entry.
  const auto moved = read(stages, {"data.mix.math.from_step=5", "data.mix.math.weight=3"}).data.mix;
  ASSERT_EQ(moved.size(), 2U);
  EXPECT_EQ(moved[1], (MixEntry{.name = "math", .train = "m/*.h5", .weight = 3, .from_step = 5}));
  const auto begun =
      read(web + "[[data.mix]]\nname = \"spare\"\ntrain = \"s\"\nweight = 0\n", {"data.mix.spare.weight=1"});
  EXPECT_EQ(begun.data.mix[1].weight, 1);
}

class MixtureContinued : public MixtureConfig {
 protected:
  Config continued(const Config& config, const Config& saved, const TrainState& place) {
    told_.clear();
    Config next = continued_mixture(config, saved, place, told_);
    // What is saved is read again by a resume, an evaluation, samples and replay.
    write_bytes(folder_.file("saved.toml"), to_toml(next));
    Config again = load_config(folder_.file("saved.toml"));
    resolve(again, 100'000, 1);
    EXPECT_EQ(again.data.mix, next.data.mix);
    return next;
  }
  std::vector<std::string> told_;
};

TEST_F(MixtureContinued, TheSameWeightsGoOn) {
  const Config saved = read(web + code + "[[data.mix]]\nname = \"code\"\nweight = 0.5\nfrom_step = 11\n");
  for (const TrainState place : {TrainState{5, 40, 0}, TrainState{10, 80, 0}, TrainState{15, 120, 0}}) {
    const Config again = continued(saved, saved, place);
    EXPECT_TRUE(told_.empty()) << place.step;
    const auto stages = mixture_stages(again, place);
    const auto before = mixture_stages(saved, {});
    ASSERT_EQ(stages.size(), before.size());
    for (std::size_t i = 0; i < stages.size(); ++i) {
      EXPECT_EQ(stages[i].first_sample, before[i].first_sample);
      EXPECT_EQ(stages[i].shares, before[i].shares);
    }
  }
}

TEST_F(MixtureContinued, ChangedWeightsAreANewStage) {
  const Config saved = read(web + code);
  Config wanted =
      read(web + code, {"data.mix.code.weight=0.7", "data.mix.math.train=m/*.h5", "data.mix.math.weight=0.6"});
  const TrainState place{.step = 10, .samples = 80, .tokens = 0};
  const Config next = continued(wanted, saved, place);
  ASSERT_EQ(told_.size(), 1U);
  EXPECT_THAT(told_[0], AllOf(HasSubstr("from step 11 on code 35 %, math 30 %, web 35 %"),
                              HasSubstr("before code 30 %, web 70 %")));
  const auto stages = mixture_stages(next, place);
  ASSERT_EQ(stages.size(), 2U);
  EXPECT_EQ(stages[0].shares, (std::vector<std::uint64_t>{700'000, 300'000, 0}));
  EXPECT_EQ(stages[1].first_sample, 80U);
  EXPECT_EQ(stages[1].shares, (std::vector<std::uint64_t>{700'000, 700'000, 600'000}));
  // Once more, from the user's own file, with another global batch: what was stays where it was.
  Config doubled = wanted;
  doubled.train.global_batch = 16;
  const TrainState later{.step = 20, .samples = 160, .tokens = 0};
  const Config third = continued(doubled, next, later);
  EXPECT_TRUE(told_.empty());
  EXPECT_EQ(mixture_stages(third, later)[1].first_sample, 80U);
  const TrainState last{.step = 30, .samples = 320, .tokens = 0};
  EXPECT_EQ(mixture_stages(continued(doubled, third, last), last)[1].first_sample, 80U);
  EXPECT_TRUE(told_.empty());
}

TEST_F(MixtureContinued, ARunOfOneSourceTakesMore) {
  Config saved = read("[data]\ntrain = \"w/*.h5\"\n");
  Config wanted = read(code, {"data.mix.train.train=w/*.h5", "data.mix.train.weight=0.7"});
  const TrainState place{.step = 10, .samples = 80, .tokens = 0};
  const Config next = continued(wanted, saved, place);
  EXPECT_EQ(told_.size(), 1U);
  EXPECT_EQ(training_sources(next.data)[0].name, only_source);
  EXPECT_EQ(mixture_stages(next, place)[0].shares, (std::vector<std::uint64_t>{1'000'000, 0}));
  EXPECT_THAT(message_of([&] { continued(read(web), saved, place); }),
              AllOf(HasSubstr("source train (w/*.h5)"), HasSubstr("weight = 0")));
}

TEST_F(MixtureContinued, AnotherScaleOfTheWeightsHoldsForStagesToCome) {
  const Config saved = read("[data]\ntrain = \"w/*.h5\"\n");
  const Config wanted = read(
      "[[data.mix]]\nname = \"train\"\ntrain = \"w/*.h5\"\nweight = 0.7\n"
      "[[data.mix]]\nname = \"math\"\ntrain = \"m/*.h5\"\nweight = 0.3\nfrom_step = 21\n");
  const TrainState place{.step = 10, .samples = 80, .tokens = 0};
  const auto stages = mixture_stages(continued(wanted, saved, place), place);
  EXPECT_TRUE(told_.empty());  // nothing changes yet
  ASSERT_EQ(stages.size(), 2U);
  EXPECT_EQ(stages[1].first_sample, 160U);
  EXPECT_EQ(stages[1].shares, (std::vector<std::uint64_t>{700'000, 300'000}));
}

TEST_F(MixtureContinued, ASourceThatWasLeftOutComesBackAndTheSameWordsChangeNothing) {
  const Config saved = read(web);
  const std::vector<std::string> words = {"data.mix.web.weight=0", "data.mix.math.train=m/*.h5",
                                          "data.mix.math.weight=1"};
  const TrainState place{.step = 10, .samples = 80, .tokens = 0}, later{.step = 20, .samples = 160, .tokens = 0};
  const Config left_out = continued(read(web, words), saved, place);
  EXPECT_EQ(told_.size(), 1U);
  const auto again = [&](const std::vector<std::string>& overrides) {
    write_bytes(folder_.file("own.toml"), to_toml(left_out));
    Config config = load_config(folder_.file("own.toml"), overrides);
    resolve(config, 100'000, 1);
    return continued(config, left_out, later);
  };
  EXPECT_EQ(mixture_stages(again(words), later).size(), 2U);
  EXPECT_TRUE(told_.empty());
  const auto stages = mixture_stages(again({"data.mix.web.weight=0.5"}), later);
  ASSERT_EQ(told_.size(), 1U);
  EXPECT_THAT(told_[0], HasSubstr("from step 21 on math 66.67 %, web 33.33 %"));
  ASSERT_EQ(stages.size(), 3U);
  EXPECT_EQ(stages[0].shares, (std::vector<std::uint64_t>{700'000, 0}));
  EXPECT_EQ(stages[2].first_sample, 160U);
}

TEST_F(MixtureContinued, SourcesWithoutAWeightKeepTheirShards) {
  const Config saved = read(web);
  const Config wanted = read(web +
                             "[[data.mix]]\nname = \"books\"\ntrain = \"b/*.h5\"\nweight = 0\n"
                             "[[data.mix]]\nname = \"books\"\nweight = 1\nfrom_step = 21\n"
                             "[[data.mix]]\nname = \"spare\"\ntrain = \"s/*.h5\"\nweight = 0\n");
  const TrainState place{.step = 10, .samples = 80, .tokens = 0};
  const Config next = continued(wanted, saved, place);
  EXPECT_EQ(training_sources(next.data).size(), 3U);
  for (const ShardSet::Source& source : training_sources(next.data)) EXPECT_FALSE(source.glob.empty()) << source.name;
  EXPECT_EQ(mixture_stages(next, place).size(), 2U);  // a weight of 0 begins no stage
  const TrainState later{.step = 15, .samples = 120, .tokens = 0};
  EXPECT_EQ(mixture_stages(continued(next, next, later), later)[1].first_sample, 160U);
}

TEST_F(MixtureContinued, StagesStillToComeFollowTheNewGlobalBatch) {
  const Config saved = read(web + code + "[[data.mix]]\nname = \"code\"\nweight = 0.5\nfrom_step = 21\n");
  Config wanted = saved;
  wanted.train.global_batch = 16;
  const TrainState place{.step = 10, .samples = 80, .tokens = 0};
  const Config next = continued(wanted, saved, place);
  EXPECT_EQ(mixture_stages(next, place)[1].first_sample, 80U + 10 * 16);
  EXPECT_TRUE(told_.empty());
}

}  // namespace
}  // namespace vqlm
