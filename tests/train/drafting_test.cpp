// Generation by drafts of heads for later tokens: the tokens are those of generation without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/train/generator_models.h"

namespace vqlm::testing {
namespace {

class DraftingTest : public ::testing::TestWithParam<GeneratorHead> {
 protected:
  static Generation drafted(Models& models, const Tokens& prompt, std::int64_t max_tokens, const Tokens& end = {}) {
    Tokens told;
    Generation generation = models.generator({.sampling = greedy(), .max_tokens = max_tokens, .end_of_text = end})
                                .run_drafting(prompt, [&](std::size_t, std::int32_t token) { told.push_back(token); });
    EXPECT_EQ(told, generation.continuations[0].tokens);
    const GenerationSpeed& speed = generation.speed;
    EXPECT_LE(speed.accepted, speed.drafted);
    EXPECT_LE(speed.drafted, speed.passes * GetParam().future);
    // One token of the prompt's pass, one of each other pass, and the drafts that were right; the last pass may end the text
    // at a draft.
    EXPECT_GE(speed.tokens, speed.passes + speed.accepted);
    EXPECT_LE(speed.tokens, 1 + speed.passes + speed.accepted);
    return generation;
  }
};

TEST_P(DraftingTest, TokensAreThoseOfGenerationWithout) {
  for (const std::int64_t chunk : {4, 8, 16}) {
    for (const std::size_t length : {1U, 8U, 13U}) {
      Models models(GetParam(), 1, chunk, 24, GetParam().spread);
      const Tokens prompt = prompt_of(length, 1);
      for (const std::int64_t max_tokens : {0, 1, 2, 3, 9, 100}) {
        const Generation plain =
            models.generator({.sampling = greedy(), .max_tokens = max_tokens, .end_of_text = {}}).run({prompt});
        const Generation draft = drafted(models, prompt, max_tokens);
        EXPECT_EQ(draft.continuations[0].tokens, plain.continuations[0].tokens) << chunk << ", " << max_tokens;
        EXPECT_EQ(draft.continuations[0].stop, plain.continuations[0].stop);
      }
    }
  }
}

TEST_P(DraftingTest, AnEndAmongTheDraftsEndsTheText) {
  Models models(GetParam(), 1, 8, 24, GetParam().spread);
  const Tokens prompt = prompt_of(6, 1), whole = drafted(models, prompt, 100).continuations[0].tokens;
  for (const std::size_t place : {0U, 1U, 5U, 9U}) {
    const std::int32_t end = whole[place];
    const Continuation ended = drafted(models, prompt, 100, {60, end}).continuations[0];
    EXPECT_EQ(ended.stop, Stop::end_of_text);
    EXPECT_EQ(ended.tokens, Tokens(whole.begin(), std::find(whole.begin(), whole.end(), end)));
  }
}

// A model that says one token for ever: heads that are the output head's copies are right at every draft.
TEST_P(DraftingTest, RightDraftsSparePasses) {
  Models models(GetParam(), 1, 8, 24, GetParam().spread);
  const ParameterStore& store = models.model().parameters();
  for (std::size_t id = 0; id < store.parameters().size(); ++id) {
    const Tensor value = store.value(static_cast<ParameterId>(id));
    const std::string& name = store.parameters()[id].name;
    std::fill_n(value.f32(), value.numel(), 0.0f);  // all scores are 0, and the lowest id is the most probable
    if (name.ends_with("token_bias") || name == "lm_head.bias") value.f32()[7] = 3;
    if (name.ends_with("cluster_bias")) value.f32()[models.whole().map()->cluster_of_token[7]] = 3;
  }
  const Generation generation = drafted(models, prompt_of(3, 1), 13);
  EXPECT_EQ(generation.continuations[0].tokens, Tokens(13, 7));
  EXPECT_EQ(generation.speed.passes, 4);  // 1 + 4 (1 + 2) tokens
  EXPECT_EQ(generation.speed.accepted, 8);
  EXPECT_EQ(generation.speed.drafted, 8);
  EXPECT_EQ(generation.speed.tokens_per_pass(), 3);
}

INSTANTIATE_TEST_SUITE_P(
    Heads, DraftingTest,
    ::testing::Values(
        GeneratorHead{.name = "dense", .kind = HeadKind::dense, .future = 2},
        GeneratorHead{.name = "low_rank", .kind = HeadKind::low_rank, .spread = 0.6f, .future = 2},
        GeneratorHead{.name = "vq", .kind = HeadKind::vq, .future = 2},
        GeneratorHead{.name = "vq_embedding", .kind = HeadKind::vq, .embedding_members = true, .future = 2},
        GeneratorHead{
            .name = "documents", .kind = HeadKind::vq, .embedding_members = true, .body = "documents", .future = 2},
        GeneratorHead{.name = "repeats", .kind = HeadKind::dense, .spread = 0.1f, .future = 2}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm::testing
