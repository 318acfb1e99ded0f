// A head that becomes another: what the new one says, and which changes are refused.
#include "train/models/changed_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/train/saved_model.h"

namespace vqlm {
namespace {

using testing::config_of;
using ::testing::HasSubstr;
using testing::largest_difference;
using testing::log_probs;
using testing::Saved;
using testing::ScaledHidden;
using testing::vq;

constexpr double rounding = 2 * 40 * 16 * 6e-8;  // as in convert_test.cpp

Config dense(bool tied, bool bias = true) {
  Config config = config_of(HeadKind::dense);
  config.model.tie_embeddings = tied;
  std::get<DenseHeadConfig>(config.head).bias = bias;
  return config;
}

Config with_cap(Config config, float cap) {
  std::get<DenseHeadConfig>(config.head).softcap = cap;
  return config;
}

Config by_embedding(bool mean, bool input_codes) {
  Config config = config_of(HeadKind::vq, 0);
  vq(config).members = EmbeddingMembersConfig{.mean = mean};
  vq(config).input_codes = input_codes;
  return config;
}

CodeMap some_map(const Config& config) {
  return make_random_map(61, vq(config).clusters, 0, 0, 9);
}

/// The largest difference of log-probabilities once h is scaled.
double error_at(float scale, const ModelSource& source, const Config& config, const CodeMap* map) {
  const ScaledHidden scaled(source, scale);
  return largest_difference(log_probs(scaled), log_probs(*with_changed_head(scaled, config, map).back()));
}

TEST(ChangedHead, AnUntiedCopySaysTheSame) {
  const Saved saved(dense(true));
  const auto changed = with_changed_head(saved.source(), dense(false), nullptr);
  EXPECT_EQ(log_probs(*changed.back()), log_probs(saved.source()));
  EXPECT_FALSE(changed.back()->model().tie_embeddings);
  const Saved capped(with_cap(dense(true), 2));
  EXPECT_NE(log_probs(capped.source()), log_probs(saved.source()));
  EXPECT_EQ(log_probs(*with_changed_head(capped.source(), with_cap(dense(false), 2), nullptr).back()),
            log_probs(capped.source()));
}

TEST(ChangedHead, LowRankBecomesDenseToRounding) {
  const Saved saved(config_of(HeadKind::low_rank));
  const auto changed = with_changed_head(saved.source(), dense(false), nullptr);
  EXPECT_EQ(kind_of(changed.back()->head()), HeadKind::dense);
  EXPECT_LT(largest_difference(log_probs(*changed.back()), log_probs(saved.source())), rounding);
}

TEST(ChangedHead, VqWithoutMembersBecomesDenseExactly) {
  Config config = config_of(HeadKind::vq, 0);
  vq(config).input_codes = true;
  const Saved saved(config);
  const auto changed = with_changed_head(saved.source(), dense(false), nullptr);
  EXPECT_LT(largest_difference(log_probs(*changed.back()), log_probs(saved.source())), rounding);
}

TEST(ChangedHead, VqBecomesDenseToFirstOrder) {
  const Saved saved(by_embedding(true, true));
  const double ratio =
      error_at(0.4f, saved.source(), dense(false), nullptr) / error_at(0.2f, saved.source(), dense(false), nullptr);
  EXPECT_GT(ratio, 3.2);  // a second-order error is quartered
  EXPECT_LT(ratio, 4.8);
}

TEST(ChangedHead, TiedKeepsTheTable) {
  const Saved saved(by_embedding(true, true));
  const auto untied = with_changed_head(saved.source(), dense(false), nullptr);
  const auto tied = with_changed_head(saved.source(), dense(true), nullptr);
  EXPECT_TRUE(tied.back()->model().tie_embeddings);
  EXPECT_EQ(read_whole(*tied.back(), "model.embed_tokens.weight"),
            read_whole(*untied.back(), "model.embed_tokens.weight"));
  EXPECT_EQ(read_whole(*tied.back(), "lm_head.bias"), read_whole(*untied.back(), "lm_head.bias"));
  EXPECT_THROW(read_whole(*tied.back(), "lm_head.weight"), Error);
  log_probs(*tied.back());  // it is a model
}

TEST(ChangedHead, TiedBecomesVqToFirstOrder) {
  for (const bool mean : {false, true}) {
    for (const bool bias : {false, true}) {
      const Saved saved(dense(true, bias));
      const Config config = by_embedding(mean, true);
      const CodeMap map = some_map(config);
      const double ratio = error_at(0.4f, saved.source(), config, &map) / error_at(0.2f, saved.source(), config, &map);
      EXPECT_GT(ratio, 3.2) << mean << bias;
      EXPECT_LT(ratio, 4.8) << mean << bias;
    }
  }
}

std::string refusal(const Config& from, const Config& to) {
  const Saved saved(from);
  EXPECT_TRUE(changes_head(to, saved.source().config()));
  try {
    check_head_change(to, saved.source());
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(ChangedHead, WhatCannotBeIsRefusedWithTheWayOut) {
  EXPECT_EQ(refusal(config_of(HeadKind::vq), dense(false)), "");
  EXPECT_EQ(refusal(by_embedding(true, true), dense(true)), "");
  EXPECT_THAT(refusal(config_of(HeadKind::vq), dense(true)), HasSubstr("model.tie_embeddings = false"));
  EXPECT_EQ(refusal(dense(true), by_embedding(true, false)), "");
  EXPECT_EQ(refusal(dense(true, false), dense(false, false)), "");
  EXPECT_THAT(refusal(config_of(HeadKind::vq), dense(false, false)), HasSubstr("set head.bias = true"));
  EXPECT_THAT(refusal(dense(false), dense(true)), HasSubstr("convert --head vq"));
  EXPECT_THAT(refusal(dense(false), by_embedding(true, true)), HasSubstr("convert --head vq"));
  EXPECT_THAT(refusal(dense(true), dense(false, false)), HasSubstr("set head.bias = true"));
  EXPECT_THAT(refusal(dense(true, false), dense(false, true)), HasSubstr("set head.bias = false"));
  EXPECT_THAT(refusal(dense(true), config_of(HeadKind::vq, 4)), HasSubstr("head.members = \"embedding\""));
  EXPECT_EQ(refusal(with_cap(dense(true), 30), with_cap(dense(false), 30)), "");
  EXPECT_THAT(refusal(with_cap(dense(true), 30), dense(false)), HasSubstr("set head.softcap = 30"));
  EXPECT_THAT(refusal(dense(true), with_cap(dense(false), 30)), HasSubstr("set head.softcap = 0"));
  EXPECT_THAT(refusal(by_embedding(true, true), with_cap(dense(false), 30)), HasSubstr("set head.softcap = 0"));
  EXPECT_THAT(refusal(with_cap(dense(true), 30), by_embedding(true, true)), HasSubstr("does not cap its logits"));
  Config low_rank = config_of(HeadKind::low_rank);
  EXPECT_EQ(refusal(low_rank, dense(false)), "");
  EXPECT_THAT(refusal(low_rank, with_cap(dense(false), 30)), HasSubstr("set head.softcap = 0"));
  EXPECT_THAT(refusal(low_rank, dense(true)), HasSubstr("model.tie_embeddings = false"));
  EXPECT_THAT(refusal(low_rank, config_of(HeadKind::vq)), HasSubstr("set head.kind = \"dense\""));
  EXPECT_THAT(refusal(low_rank, dense(false, false)), HasSubstr("set head.bias = true"));
  EXPECT_THAT(refusal(dense(false), low_rank), HasSubstr("a low-rank head is made of no other"));
  EXPECT_THAT(refusal(config_of(HeadKind::vq), low_rank), HasSubstr("a low-rank head is made of no other"));
  low_rank.model.tie_embeddings = true;
  EXPECT_THAT(refusal(low_rank, dense(true)), HasSubstr("vqlm convert --head dense"));
  EXPECT_THAT(refusal(config_of(HeadKind::low_rank), low_rank), HasSubstr("a low-rank head is made of no other"));
  EXPECT_THAT(refusal(config_of(HeadKind::adaptive), dense(false)), HasSubstr("of an adaptive head no other is made"));
  EXPECT_THAT(refusal(dense(false), config_of(HeadKind::adaptive)), HasSubstr("an adaptive head is made of no other"));
  Config future = dense(false);
  testing::set_future(future, 2);
  EXPECT_THAT(refusal(dense(true), future), HasSubstr("set head.future = 0"));
  EXPECT_EQ(refusal(config_of(HeadKind::vq), dense(false)), "");
  EXPECT_FALSE(changes_head(dense(true), dense(true)));
}

}  // namespace
}  // namespace vqlm
