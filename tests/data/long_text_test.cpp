#include "data/prepare/long_text.h"

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <unordered_map>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

/// A text of many times most_at_once that can be cut, with odd text in it.
std::string long_text(std::uint64_t seed) {
  std::string text;
  for (std::uint64_t i = 0; i < 30; ++i) text += made_up_text(seed + i, 80) + odd_text(seed + i, 20, true) + " ";
  return text;
}

Tokenizer train_with(std::unordered_map<std::string, std::string> options) {
  options.insert({{"vocab_size", "400"}, {"minloglevel", "2"}, {"model_type", "bpe"}});
  const TemporaryFolder folder;
  write_bytes(folder.file("text"), made_up_text(1, 20'000));
  options.insert({{"input", folder.file("text")}, {"model_prefix", folder.file("sp")}});
  const auto status = sentencepiece::SentencePieceTrainer::Train(options);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return Tokenizer::open(folder.file("sp.model"));
}

constexpr std::size_t most_at_once = 1000;

/// True where the texts were encoded, false where they were refused; in pieces or not, ids are SentencePiece's.
bool encodes(const Tokenizer& tokenizer) {
  LongTextEncoder encoder(tokenizer, most_at_once);
  std::size_t encoded = 0;
  constexpr std::uint64_t texts = 20;
  for (std::uint64_t seed = 0; seed < texts; ++seed) {
    const std::string text = long_text(100 * seed);
    EXPECT_GT(text.size(), 8 * most_at_once);
    std::vector<std::uint32_t> expected{5};
    std::vector<std::uint32_t> actual{5};
    tokenizer.encode(text, expected);
    if (encoder.encode(text, actual)) {
      ++encoded;
      EXPECT_EQ(actual, expected) << "seed " << seed;
    } else {
      EXPECT_EQ(actual.size(), 1u);
    }
  }
  return encoded == texts;
}

TEST(LongTexts, HaveTheIdsOfTheWholeText) {
  EXPECT_TRUE(encodes(train_with({})));  // SentencePiece's defaults: NFKC, no byte fallback
  EXPECT_TRUE(encodes(train_with({{"normalization_rule_name", "nmt_nfkc_cf"}, {"byte_fallback", "true"}})));
  EXPECT_TRUE(encodes(train_with({{"normalization_rule_name", "identity"}, {"remove_extra_whitespaces", "false"}})));
  EXPECT_TRUE(encodes(train_with({{"user_defined_symbols", "ta ren, ko li"}})));
  const Tokenizer own = Tokenizer::from_bytes(made_up_tokenizer(), "own");
  EXPECT_TRUE(LongTextEncoder(own).words().active());
  EXPECT_TRUE(encodes(own));
}

TEST(LongTexts, AreRefusedWhereNoCutIsSafe) {
  EXPECT_FALSE(encodes(train_with({{"model_type", "unigram"}})));
  EXPECT_FALSE(encodes(train_with({{"add_dummy_prefix", "false"}})));
  // Pieces may hold spaces at their ends or inside: refused or not, the ids are the same.
  encodes(train_with({{"treat_whitespace_as_suffix", "true"}}));
  encodes(train_with({{"split_by_whitespace", "false"}}));
}

TEST(LongTexts, AreRefusedWithAnEndlessWord) {
  const Tokenizer own = Tokenizer::from_bytes(made_up_tokenizer(), "own");
  LongTextEncoder encoder(own, most_at_once);
  std::vector<std::uint32_t> ids;
  const std::string word(most_at_once + 1, 'a');
  EXPECT_FALSE(encoder.encode("ta " + word + " ko", ids));
  EXPECT_FALSE(encoder.encode("ta" + std::string(most_at_once + 1, ' ') + "ko", ids));
  EXPECT_TRUE(ids.empty());
  EXPECT_TRUE(encoder.encode(word.substr(1), ids));
  // U+2581 in the text takes the cache's way away, and the text is cut.
  std::string marked = long_text(7) + " \xE2\x96\x81 " + long_text(8);
  std::vector<std::uint32_t> expected;
  own.encode(marked, expected);
  ids.clear();
  EXPECT_TRUE(encoder.encode(marked, ids));
  EXPECT_EQ(ids, expected);
}

}  // namespace
}  // namespace vqlm
