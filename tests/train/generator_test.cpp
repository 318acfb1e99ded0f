// Generation over a cache against full forward passes, and the choice of tokens against brute force.
#include "train/tools/generate/generator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "tests/core/chi_square.h"
#include "tests/train/generator_models.h"

namespace vqlm::testing {
namespace {

class GeneratorTest : public ::testing::TestWithParam<GeneratorHead> {};

// Three layers of f32 sums of 16 to 24 terms of order one; the cache's attention and products of other sizes sum in another
// order: 3 layers x (4 products and a norm) x 24 u, on log-probabilities of at most 2^4, is 4e-4 at worst and 1e-6 as a rule.
constexpr double tolerance = 1e-4;

// In chunks of 8 the prompt of 13 goes in as 8 + 5, with chunks of 1 token by token.
TEST_P(GeneratorTest, GreedyContinuationIsThatOfFullPasses) {
  for (const std::int64_t chunk : {1, 3, 8, 16}) {
    for (const std::size_t length : {1U, 8U, 13U}) {
      Models models(GetParam(), 1, chunk, 24, GetParam().spread);
      const Tokens prompt = prompt_of(length, 1);
      const Generation generation =
          models.generator({.sampling = greedy(), .max_tokens = 11, .end_of_text = {}}).run({prompt});
      const Tokens& tokens = generation.continuations[0].tokens;
      ASSERT_EQ(tokens.size(), 11U);
      Tokens text = prompt;
      for (const std::int32_t token : tokens) {
        const std::vector<float> row = models.full(text);
        ASSERT_NEAR(row[static_cast<std::size_t>(token)], *std::max_element(row.begin(), row.end()), tolerance)
            << "chunk " << chunk << ", token " << text.size();
        text.push_back(token);
      }
      EXPECT_GT(std::set<std::int32_t>(tokens.begin(), tokens.end()).size(), 1U);  // the model says something
    }
  }
}

TEST(GeneratorOfDocuments, EveryTokenSeesItsOwnDocument) {
  for (const std::int64_t chunk : {1, 3, 8, 16}) {
    Models models({"documents", HeadKind::dense, false, "documents"}, 1, chunk);
    const Tokens prompt{5, 9, 2, 7, 11, 2, 2, 30, 31, 2};  // 2 ends a document
    const Tokens tokens = models.generator({.sampling = greedy(), .max_tokens = 9, .end_of_text = {}})
                              .run({prompt})
                              .continuations[0]
                              .tokens;
    Tokens text = prompt;
    for (const std::int32_t token : tokens) {
      const std::vector<float> row = models.full(text);
      ASSERT_NEAR(row[static_cast<std::size_t>(token)], *std::max_element(row.begin(), row.end()), tolerance);
      text.push_back(token);
    }
    // The document before says nothing about the next one but for its first token.
    Tokens other = prompt;
    other[8] = 40;
    other.push_back(12);
    Tokens same = prompt;
    same.push_back(12);
    EXPECT_EQ(models.full(other), models.full(same));
  }
}

TEST_P(GeneratorTest, EverySequenceOfABatchIsAsAlone) {
  const std::vector<Tokens> prompts = {prompt_of(9, 1), prompt_of(9, 2), prompt_of(9, 3)};
  Models together(GetParam(), 3, 4);
  const Generation batch = together.generator({.sampling = greedy(), .max_tokens = 10, .end_of_text = {}}).run(prompts);
  for (std::size_t b = 0; b < prompts.size(); ++b) {
    Models models(GetParam());
    const Generation alone =
        models.generator({.sampling = greedy(), .max_tokens = 10, .end_of_text = {}}).run({prompts[b]});
    EXPECT_EQ(batch.continuations[b].tokens, alone.continuations[0].tokens);
  }
}

TEST_P(GeneratorTest, ASeedIsARun) {
  Models models(GetParam(), 2);
  const std::vector<Tokens> prompts(2, prompt_of(5, 1));
  const auto sampled = [&](std::uint64_t seed) {
    SamplingOptions sampling;
    sampling.seed = seed;
    const Generation g = models.generator({.sampling = sampling, .max_tokens = 12, .end_of_text = {}}).run(prompts);
    return std::vector<Tokens>{g.continuations[0].tokens, g.continuations[1].tokens};
  };
  const auto first = sampled(1);
  EXPECT_EQ(first, sampled(1));
  EXPECT_NE(first, sampled(2));
  EXPECT_NE(first[0], first[1]);  // sequences draw from streams of their own
}

TEST_P(GeneratorTest, ASequenceEndsWhereItShould) {
  Models models(GetParam(), 1, 8, 16);
  const Tokens prompt = prompt_of(6, 1);
  const auto run = [&](std::int64_t max_tokens, Tokens end) {
    return models.generator({.sampling = greedy(), .max_tokens = max_tokens, .end_of_text = std::move(end)})
        .run({prompt})
        .continuations[0];
  };
  const Continuation whole = run(100, {});
  EXPECT_EQ(whole.stop, Stop::context);
  EXPECT_EQ(whole.tokens.size(), 10U);  // prompt and continuation fill the context
  const Continuation cut = run(4, {});
  EXPECT_EQ(cut.stop, Stop::max_tokens);
  EXPECT_EQ(cut.tokens, Tokens(whole.tokens.begin(), whole.tokens.begin() + 4));
  EXPECT_EQ(run(10, {}).stop, Stop::max_tokens);
  EXPECT_TRUE(run(0, {}).tokens.empty());

  const std::int32_t end = whole.tokens[3];
  const auto first = std::find(whole.tokens.begin(), whole.tokens.end(), end);
  const Continuation ended = run(100, {60, end});
  EXPECT_EQ(ended.stop, Stop::end_of_text);
  EXPECT_EQ(ended.tokens, Tokens(whole.tokens.begin(), first));
}

TEST_P(GeneratorTest, WhatDoesNotFitIsRefused) {
  Models models(GetParam(), 1, 8, 16);
  Generator generator = models.generator({.sampling = greedy(), .max_tokens = 4, .end_of_text = {}});
  EXPECT_THROW(generator.run({prompt_of(16, 1)}), Error);
  EXPECT_EQ(generator.run({prompt_of(15, 1)}).continuations[0].tokens.size(), 1U);
  EXPECT_THROW(generator.run({{3, 61}}), Error);
  EXPECT_THROW(generator.run({{-1}}), Error);
}

// ---- the choice of one token ------------------------------------------------------------------------------------------

/// Probabilities after temperature, top-k and top-p as Hugging Face's warpers make them, one after the other, from scratch.
std::vector<double> brute_force(const std::vector<float>& row, const SamplingOptions& options) {
  std::vector<double> p = tempered({row.begin(), row.end()}, static_cast<double>(options.temperature));
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
  const auto renormalise = [&] {
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
  };
  if (options.top_k > 0) {
    for (std::size_t i = static_cast<std::size_t>(options.top_k); i < order.size(); ++i) p[order[i]] = 0;
    renormalise();
  }
  double before = 0;
  for (const std::size_t v : order) {
    const double mine = p[v];
    if (before >= options.top_p) p[v] = 0;
    before += mine;
  }
  renormalise();
  return p;
}

TEST_P(GeneratorTest, FiltersAreThoseOfBruteForce) {
  Models models(GetParam(), 1, 8, 24, 0.8f);
  const Tokens prompt = prompt_of(7, 4);
  const std::vector<float> row = models.full(prompt);
  const Tensor h = models.hidden(prompt);
  for (const float temperature : {0.5f, 1.0f, 1.7f}) {
    for (const std::int64_t top_k : {0, 1, 6, 61, 1000}) {
      for (const double top_p : {0.05, 0.6, 0.9, 1.0}) {
        SamplingOptions options{.temperature = temperature, .top_k = top_k, .top_p = top_p, .seed = 3};
        SCOPED_TRACE(::testing::Message() << "temperature " << temperature << " k " << top_k << " p " << top_p);
        if (top_k == 1000) options.top_k = 0;
        const std::vector<double> expected = brute_force(row, options);
        options.top_k = top_k;
        TokenSampler sampler(models.backend(), models.model().head(), Models::vocabulary, options);
        std::vector<std::int64_t> counts(row.size(), 0);
        for (std::int64_t position = 0; position < 4000; ++position) {
          ++counts[static_cast<std::size_t>(sampler.choose(h, 0, position))];
        }
        for (std::size_t v = 0; v < row.size(); ++v) {
          if (expected[v] == 0) {
            ASSERT_EQ(counts[v], 0) << "token " << v;
          } else if (expected[v] > 0.003) {  // missed by chance: (1 - p)^4000, below 1e-5
            ASSERT_GT(counts[v], 0) << "token " << v;
          }
        }
        EXPECT_LT(chi_square_excess(counts, expected), 0);
      }
    }
  }
}

TEST_P(GeneratorTest, TemperatureZeroIsTheArgMax) {
  Models models(GetParam());
  const Tokens prompt = prompt_of(7, 4);
  const std::vector<float> row = models.full(prompt);
  TokenSampler sampler(models.backend(), models.model().head(), Models::vocabulary, greedy());
  EXPECT_EQ(sampler.choose(models.hidden(prompt), 0, 7), std::max_element(row.begin(), row.end()) - row.begin());
}

INSTANTIATE_TEST_SUITE_P(Heads, GeneratorTest,
                         ::testing::Values(GeneratorHead{"dense", HeadKind::dense},
                                           GeneratorHead{"low_rank", HeadKind::low_rank, false, "llama", 0.6f},
                                           GeneratorHead{"low_rank_tied", HeadKind::low_rank, true},
                                           GeneratorHead{"adaptive", HeadKind::adaptive},
                                           GeneratorHead{"vq", HeadKind::vq},
                                           GeneratorHead{"vq_embedding_input_codes", HeadKind::vq, true},
                                           GeneratorHead{"qwen", HeadKind::dense, false, "qwen", 1.0f},
                                           GeneratorHead{"olmo", HeadKind::dense, false, "olmo", 1.0f},
                                           GeneratorHead{"gemma", HeadKind::dense, false, "gemma"},
                                           GeneratorHead{"documents", HeadKind::dense, false, "documents"},
                                           GeneratorHead{"tables", HeadKind::dense, false, "tables"},
                                           GeneratorHead{"smollm", HeadKind::dense, false, "smollm"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(SamplingOptions, WrongOnesAreNamed) {
  const auto message = [](SamplingOptions options) {
    try {
      check_sampling(options);
    } catch (const UsageError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(message({.temperature = -1}), ::testing::HasSubstr("--temperature -1"));
  EXPECT_THAT(message({.temperature = NAN}), ::testing::HasSubstr("--temperature nan"));
  EXPECT_THAT(message({.top_k = -2}), ::testing::HasSubstr("--top-k -2"));
  EXPECT_THAT(message({.top_p = 0}), ::testing::HasSubstr("--top-p 0"));
  EXPECT_THAT(message({.top_p = 1.5}), ::testing::HasSubstr("--top-p 1.5"));
  EXPECT_EQ(message({.temperature = 0, .top_k = 5, .top_p = 0.5}), "");
}

}  // namespace
}  // namespace vqlm::testing
