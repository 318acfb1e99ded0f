#include "data/tokenizer/word_cache.h"

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <sstream>
#include <unordered_map>

#include "tests/data/test_text.h"

namespace vqlm {
namespace {

/// Made-up text, a line at a time, for SentencePiece's trainer.
class Lines : public sentencepiece::SentenceIterator {
 public:
  Lines() : text_(made_up_text(1, 40'000)) { Next(); }
  bool done() const override { return done_; }
  void Next() override { done_ = !std::getline(text_, value_); }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::istringstream text_;
  std::string value_;
  bool done_ = false;
};

/// A model with options other than train_tokenizer's.
Tokenizer train_with(std::unordered_map<std::string, std::string> options) {
  options.insert({{"vocab_size", "700"}, {"minloglevel", "2"}, {"model_type", "bpe"}, {"byte_fallback", "true"}});
  options.insert({{"normalization_rule_name", "identity"}, {"remove_extra_whitespaces", "false"}});
  Lines lines;
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &lines, &model);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return Tokenizer::from_bytes(model, "test");
}

/// The cache gives SentencePiece's ids for prose and for odd text; 16 slots are given up all the time.
void expect_equal_ids(const Tokenizer& tokenizer, WordCache& words) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const std::string text = seed % 4 == 0 ? made_up_text(seed, 300) : odd_text(seed, seed % 60, false);
    std::vector<std::uint32_t> expected{5};
    std::vector<std::uint32_t> actual{5};
    tokenizer.encode(text, expected);
    words.encode(text, actual);
    ASSERT_EQ(actual, expected) << "seed " << seed << ": " << text;
  }
}

void expect_equal_ids(const Tokenizer& tokenizer, bool active) {
  WordCache large(tokenizer);
  WordCache small(tokenizer, 16);
  EXPECT_EQ(large.active(), active);
  expect_equal_ids(tokenizer, large);
  expect_equal_ids(tokenizer, small);
}

TEST(WordCache, EqualsSentencePieceForOurModels) {
  expect_equal_ids(Tokenizer::from_bytes(made_up_tokenizer(), "test"), true);
}

TEST(WordCache, EqualsSentencePieceForModelsThatPutASpaceInFront) {  // as Llama's
  const Tokenizer tokenizer = train_with({{"add_dummy_prefix", "true"}});
  EXPECT_TRUE(tokenizer.traits().dummy_prefix);
  expect_equal_ids(tokenizer, true);
}

TEST(WordCache, EqualsSentencePieceWherePiecesSpanWords) {
  const Tokenizer tokenizer = train_with({{"split_by_whitespace", "false"}, {"split_by_unicode_script", "false"}});
  bool spans = false;
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    spans = spans || (tokenizer.is_text_piece(id) && tokenizer.piece(id).find("\xE2\x96\x81", 1) != std::string::npos);
  }
  EXPECT_TRUE(spans);
  expect_equal_ids(tokenizer, true);
}

TEST(WordCache, EqualsSentencePieceForUserDefinedSymbols) {
  expect_equal_ids(train_with({{"user_defined_symbols", "ko.,\xE2\x96\x81taren\xE2\x96\x81,</s,19"}}), true);
}

TEST(WordCache, LeavesOtherModelsToSentencePiece) {
  expect_equal_ids(train_with({{"model_type", "unigram"}, {"vocab_size", "500"}}), false);
  expect_equal_ids(train_with({{"byte_fallback", "false"}}), false);
  expect_equal_ids(train_with({{"normalization_rule_name", "nmt_nfkc"}}), false);
  expect_equal_ids(train_with({{"remove_extra_whitespaces", "true"}}), false);
  expect_equal_ids(train_with({{"treat_whitespace_as_suffix", "true"}}), false);
}

TEST(WordCache, FindsWhatItHasSeen) {
  const Tokenizer tokenizer = Tokenizer::from_bytes(made_up_tokenizer(), "test");
  WordCache words(tokenizer);
  const std::string text = made_up_text(5, 20'000);
  std::vector<std::uint32_t> ids;
  words.encode(text, ids);
  const std::uint64_t misses = words.misses();
  EXPECT_GT(misses, 100u);
  EXPECT_LT(misses, words.lookups() / 10);  // at most about 2,000 different words and punctuation marks
  words.encode(text, ids);
  EXPECT_EQ(words.misses(), misses);
}

}  // namespace
}  // namespace vqlm
