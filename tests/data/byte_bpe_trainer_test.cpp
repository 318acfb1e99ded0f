#include "data/tokenizer/byte_bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

using testing::ElementsAre;

/// The first merges of a tokenizer.
std::vector<std::string> merges_of(const std::string& json, std::size_t n) {
  auto merges = nlohmann::json::parse(json)["model"]["merges"].get<std::vector<std::string>>();
  merges.resize(n);
  return merges;
}

TEST(ByteBpeTrainer, MergesTheMostFrequentPairFirst) {
  // Words: ab (3), " ab" (2), abc (1), " x" (1). Pairs: a b 6, " " a 2, b c 1, " " x 1; then " " ab 2, ab c 1;
  // of the last two, which are equally frequent, the one with the lower ids.
  const std::string json = train_byte_level_bpe({"ab ab", "ab ab", "ab", "abc x"}, 260);
  EXPECT_THAT(merges_of(json, 3), ElementsAre("a b", "\xC4\xA0 ab", "\xC4\xA0 x"));
  const Tokenizer tokenizer = Tokenizer::from_bytes(json, "t.json");
  EXPECT_EQ(tokenizer.vocab_size(), 260);
  EXPECT_EQ(tokenizer.eos_id(), 0);
  std::vector<std::uint32_t> ids;
  tokenizer.encode("ab ab x", ids);
  EXPECT_THAT(ids, ElementsAre(257u, 258u, 259u));
}

TEST(ByteBpeTrainer, CountsPairsThatOverlapThemselves) {
  // aaaa: a a stands at three places, and two merges come of them; aa aa is next.
  const std::string json = train_byte_level_bpe({"aaaa aaaa aaaa"}, 260);
  EXPECT_THAT(merges_of(json, 3), ElementsAre("a a", "aa aa", "\xC4\xA0 aaaa"));
}

TEST(ByteBpeTrainer, KeepsEveryByteAndIsTheSameAgain) {
  const auto documents = made_up_documents(3, 200);
  const std::string json = train_byte_level_bpe(documents, 500);
  EXPECT_EQ(json, train_byte_level_bpe(documents, 500));
  const Tokenizer tokenizer = Tokenizer::from_bytes(json, "t.json");
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const std::string text = odd_text(seed, 1 + seed, true);
    std::vector<std::uint32_t> ids;
    tokenizer.encode(text, ids);
    ASSERT_EQ(tokenizer.decode(std::vector<std::int32_t>(ids.begin(), ids.end())), text) << "seed " << seed;
  }
}

TEST(ByteBpeTrainer, SaysWhyItCannotTrain) {
  EXPECT_THROW(train_byte_level_bpe({"abc"}, 256), Error);
  EXPECT_THROW(train_byte_level_bpe({"abc"}, 300), Error);
  EXPECT_THROW(train_byte_level_bpe({}, 300), Error);
}

}  // namespace
}  // namespace vqlm
