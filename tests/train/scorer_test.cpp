// The scorer against the full log-probabilities of each sequence alone, and what lines of its input mean.
#include "train/tools/score/scorer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "core/error.h"
#include "tests/train/tiny_model.h"
#include "train/config/enum_words.h"

namespace vqlm {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::tiny_model_config;
using testing::TinyModel;

constexpr std::int64_t longest = 64, vocabulary = 61;

Config config_of(HeadKind kind) {
  Config config = tiny_model_config(kind);
  config.data.seq_len = longest;
  return config;
}

class ScorerTest : public ::testing::TestWithParam<HeadKind> {};

/// log p of the scored tokens and whether each is the most probable, from (T, V) log-probabilities of the sequence alone.
SequenceScore alone(const ScoredSequence& sequence, HeadKind kind) {
  Config config = config_of(kind);
  config.data.seq_len = static_cast<std::int64_t>(sequence.tokens.size()) - 1;
  config.train.micro_batch = config.train.global_batch = 1;
  TinyModel tiny(config);
  tiny.randomize(9, 0.3f);
  const std::size_t rows = sequence.tokens.size() - 1;
  std::vector<float> log_probs(rows * vocabulary);
  std::vector<std::int32_t> ids(sequence.tokens.begin(), sequence.tokens.end() - 1);
  tiny.model().log_probs(Tensor(log_probs.data(), DType::f32, {config.data.seq_len, vocabulary}),
                         Tensor(ids.data(), DType::i32, {config.data.seq_len}));
  SequenceScore score{.log_probs = {}, .greedy = true};
  for (std::size_t i = sequence.first; i < sequence.tokens.size(); ++i) {
    const auto row = log_probs.begin() + static_cast<std::ptrdiff_t>((i - 1) * vocabulary);
    score.log_probs.push_back(static_cast<double>(row[sequence.tokens[i]]));
    score.greedy = score.greedy && std::max_element(row, row + vocabulary) - row == sequence.tokens[i];
  }
  return score;
}

TEST_P(ScorerTest, EverySequenceIsScoredAsAlone) {
  Config config = config_of(GetParam());
  config.train.micro_batch = config.train.global_batch = 2;
  TinyModel tiny(config);
  tiny.randomize(9, 0.3f);
  std::vector<ScoredSequence> sequences;
  const Philox rng(3, "sequences");
  std::uint64_t drawn = 0;
  for (const std::size_t length : {2, 65, 3, 33, 34, 17, 18, 9, 64, 5, 5, 5, 40, 17}) {
    ScoredSequence sequence{{}, 1 + rng.below(drawn++, length - 1)};
    for (std::size_t i = 0; i < length; ++i)
      sequence.tokens.push_back(static_cast<std::int32_t>(rng.below(drawn++, vocabulary)));
    sequences.push_back(sequence);
  }
  // Ones that are greedy: the last token is the most probable after the others.
  for (const std::size_t which : {1u, 5u}) {
    ScoredSequence greedy = sequences[which];
    greedy.first = greedy.tokens.size() - 1;
    for (std::int32_t token = 0; token < vocabulary; ++token) {
      greedy.tokens.back() = token;
      if (alone(greedy, GetParam()).greedy) break;
    }
    sequences.push_back(greedy);
  }
  std::vector<const ScoredSequence*> pointers;
  for (const ScoredSequence& sequence : sequences) pointers.push_back(&sequence);
  Scorer scorer(tiny.backend(), tiny.grid(), tiny.model());
  const std::vector<SequenceScore> scores = scorer.run(pointers);
  ASSERT_EQ(scores.size(), sequences.size());
  int greedy = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const SequenceScore expected = alone(sequences[i], GetParam());
    ASSERT_EQ(scores[i].log_probs.size(), expected.log_probs.size());
    for (std::size_t t = 0; t < expected.log_probs.size(); ++t)
      EXPECT_NEAR(scores[i].log_probs[t], expected.log_probs[t], 2e-5) << i << ", token " << t;
    EXPECT_EQ(scores[i].greedy, expected.greedy) << i;
    greedy += expected.greedy ? 1 : 0;
  }
  EXPECT_GE(greedy, 2);
}

INSTANTIATE_TEST_SUITE_P(Heads, ScorerTest,
                         ::testing::Values(HeadKind::dense, HeadKind::vq, HeadKind::low_rank, HeadKind::adaptive),
                         [](const auto& test) { return std::string(word_of(test.param)); });

/// A letter is a token, its place in the alphabet; two spaces are one.
std::vector<std::int32_t> letters(const std::string& text) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "  ") == 0) ++i;
    ids.push_back(text[i] == ' ' ? 27 : text[i] - 'a' + 1);
  }
  return ids;
}

ScoreReading reading(std::int64_t most = 8) {
  return {.vocab_size = 30, .most = most, .beginning = 29, .begin_contexts = false, .encode = letters};
}

std::vector<ScoreRequest> read(const std::string& lines, const ScoreReading& how) {
  std::istringstream in(lines);
  return read_score_requests(in, "r.jsonl", how);
}

std::string error_of(const std::string& lines, const ScoreReading& how = reading()) {
  try {
    read(lines, how);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ScoreRequests, AContinuationStandsBehindItsContext) {
  const auto requests = read(R"({"context": "ab", "continuation": "c", "id": 7})"
                             "\n\n"
                             R"({"context": "ab  ", "continuation": "c"})"
                             "\n"
                             R"({"context": "", "continuation": "cd"})"
                             "\n"
                             R"({"context_tokens": [1, 2, 3, 4, 5, 6, 7, 8], "continuation_tokens": [9, 10]})",
                             reading());
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_THAT(requests[0].sequences[0].tokens, ElementsAre(1, 2, 3));
  EXPECT_EQ(requests[0].sequences[0].first, 2u);
  EXPECT_THAT(requests[1].sequences[0].tokens, ElementsAre(1, 2, 27, 3));  // the spaces are the continuation's
  EXPECT_EQ(requests[1].sequences[0].first, 2u);
  EXPECT_THAT(requests[2].sequences[0].tokens, ElementsAre(29, 3, 4));
  EXPECT_THAT(requests[3].sequences[0].tokens, ElementsAre(2, 3, 4, 5, 6, 7, 8, 9, 10));  // at most 8 + 1
  EXPECT_EQ(requests[3].sequences[0].first, 7u);
  ScoreReading begun = reading();
  begun.begin_contexts = true;
  EXPECT_THAT(read(R"({"context": "ab", "continuation": "c"})", begun)[0].sequences[0].tokens,
              ElementsAre(29, 1, 2, 3));
}

TEST(ScoreRequests, AWholeTextIsCutIntoWindowsOfWhichTheLastLooksBack) {
  const auto requests = read(R"({"text": "abcdefghij"})", reading(4));
  ASSERT_EQ(requests[0].sequences.size(), 3u);
  EXPECT_THAT(requests[0].sequences[0].tokens, ElementsAre(29, 1, 2, 3, 4));
  EXPECT_THAT(requests[0].sequences[1].tokens, ElementsAre(4, 5, 6, 7, 8));
  EXPECT_EQ(requests[0].sequences[1].first, 1u);
  EXPECT_THAT(requests[0].sequences[2].tokens, ElementsAre(6, 7, 8, 9, 10));
  EXPECT_EQ(requests[0].sequences[2].first, 3u);
}

TEST(ScoreRequests, WhatIsWrongIsNamedWithItsLine) {
  EXPECT_THAT(error_of("{\"text\": \"a\"}\nnone"), HasSubstr("r.jsonl:2: is no JSON object"));
  EXPECT_THAT(error_of("{}"), HasSubstr("must have \"context\""));
  EXPECT_THAT(error_of(R"({"text": "a", "tokens": [1]})"), HasSubstr("must have"));
  EXPECT_THAT(error_of(R"({"context": "a"})"), HasSubstr("\"continuation\" must be a string"));
  EXPECT_THAT(error_of(R"({"context": "a", "continuation": ""})"), HasSubstr("no tokens"));
  EXPECT_THAT(error_of(R"({"tokens": []})"), HasSubstr("without tokens"));
  EXPECT_THAT(error_of(R"({"tokens": [1, 30]})"), HasSubstr("30 is no token id below 30"));
  EXPECT_THAT(error_of(R"({"tokens": [1.5]})"), HasSubstr("1.5"));
  EXPECT_THAT(error_of(R"({"context": "", "continuation": "abcdefghi"})"),
              AllOf(HasSubstr("9 tokens"), HasSubstr("--context")));
  ScoreReading ids_only = reading();
  ids_only.encode = nullptr;
  EXPECT_THAT(error_of(R"({"text": "a"})", ids_only), HasSubstr("give token ids"));
}

}  // namespace
}  // namespace vqlm
