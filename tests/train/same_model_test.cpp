// first_difference(): which keys make a configuration another model, another state of a run, or other samples.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/head_config.h"
#include "train/config/same_model.h"

namespace vqlm {
namespace {

using testing::learning_by;
using testing::set_groups;
using ::testing::StrEq;
using testing::vq;

Config resolved(const HeadConfig& head) {
  Config config;
  config.head = head;
  config.train.global_batch = 8;
  resolve(config, 320, 1);
  return config;
}

const VqHeadConfig by_codes{
    .clusters = 8, .members = CodeMembersConfig{.groups = 4, .codes = 16}, .input_codes = false};
const VqHeadConfig by_rows{.clusters = 8, .members = EmbeddingMembersConfig{.mean = false}};

/// The differing key after `change` to a copy; empty where there is none.
template <class Change>
std::string differing(const Config& saved, Compared compared, Change change) {
  Config now = saved;
  change(now);
  const auto difference = first_difference(now, saved, compared);
  return difference ? difference->key : "";
}

TEST(SameModel, NamesTheKeyAndBothValuesAsTheFileWritesThem) {
  const Config saved = resolved(by_codes);
  Config now = saved;
  now.model.rope_theta = 500;
  const auto theta = first_difference(now, saved, Compared::model);
  ASSERT_TRUE(theta);
  EXPECT_THAT(theta->key, StrEq("model.rope_theta"));
  EXPECT_THAT(theta->now, StrEq("500.0"));
  EXPECT_THAT(theta->saved, StrEq("10000.0"));
  now = saved;
  now.head = DenseHeadConfig{};
  const auto kind = first_difference(now, saved, Compared::model);
  ASSERT_TRUE(kind);
  EXPECT_THAT(kind->now, StrEq("\"dense\""));
  EXPECT_THAT(kind->saved, StrEq("\"vq\""));
}

TEST(SameModel, SizesAndMeaningsOfTensorsAreTheModel) {
  const Config saved = resolved(by_codes);
  const auto model = [&](auto change) { return differing(saved, Compared::model, change); };
  EXPECT_THAT(model([](Config& c) { c.model.vocab_size = 330; }), StrEq("model.vocab_size"));
  EXPECT_THAT(model([](Config& c) { c.model.d_ff = 96; }), StrEq("model.d_ff"));
  EXPECT_THAT(model([](Config& c) { c.model.rope_scaling.kind = RopeScaling::Kind::linear; }),
              StrEq("model.rope_scaling"));
  EXPECT_THAT(model([](Config& c) { vq(c).bias = false; }), StrEq("head.bias"));
  EXPECT_THAT(model([](Config& c) { set_groups(c, 2); }), StrEq("head.groups"));
  EXPECT_THAT(model([](Config& c) { std::get<CodeMembersConfig>(vq(c).members).codes = 8; }), StrEq("head.codes"));
  EXPECT_THAT(model([](Config& c) { vq(c).input_codes = true; }), StrEq("head.input_codes"));
}

TEST(SameModel, HowItWasTrainedAndKeysOfOtherHeadsAreNot) {
  const auto training = [](Config& c) {
    vq(c).map = "random";
    vq(c).learning = EmaLearningConfig{};
    c.optim.lr = 1;
    c.train.seed = 7;
    c.data.seq_len = 128;
  };
  EXPECT_THAT(differing(resolved(by_codes), Compared::model, training), StrEq(""));
  const auto clusters = [](Config& c) { vq(c).clusters = 9; };
  EXPECT_THAT(differing(resolved(by_codes), Compared::model, clusters), StrEq("head.clusters"));
  const auto mean = [](Config& c) { vq(c).members = EmbeddingMembersConfig{.mean = true}; };
  EXPECT_THAT(differing(resolved(by_codes), Compared::model, mean), StrEq("head.members"));
  EXPECT_THAT(differing(resolved(by_rows), Compared::model, mean), StrEq("head.member_mean"));
}

TEST(SameModel, ARunGoesOnWithItsAveragesAndItsSamples) {
  const Config saved = resolved(by_codes);
  const auto learns = [](CodebookLearning learning) {
    return [=](Config& c) { vq(c).learning = learning_by(learning); };
  };
  EXPECT_THAT(differing(saved, Compared::averages, learns(CodebookLearning::ema)), StrEq("head.learning"));
  EXPECT_THAT(differing(saved, Compared::averages, learns(CodebookLearning::commitment)), StrEq(""));
  EXPECT_THAT(differing(saved, Compared::samples, [](Config& c) { c.train.seed = 7; }), StrEq("train.seed"));
  EXPECT_THAT(differing(saved, Compared::samples, [](Config& c) { c.data.seq_len = 128; }), StrEq("data.seq_len"));
  EXPECT_THAT(differing(saved, Compared::samples, [](Config& c) { c.train.micro_batch = 4; }), StrEq(""));
}

}  // namespace
}  // namespace vqlm
