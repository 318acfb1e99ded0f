#include "train/tools/generate/text_stream.h"

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <unordered_map>

#include "tests/data/test_text.h"

namespace vqlm::testing {
namespace {

using Tokens = std::vector<std::int32_t>;

/// A model as Llama's: a space in front of the text.
Tokenizer tokenizer_with_prefix() {
  class Lines : public sentencepiece::SentenceIterator {
   public:
    bool done() const override { return next_ == lines_.size(); }
    void Next() override { ++next_; }
    const std::string& value() const override { return lines_[next_]; }
    sentencepiece::util::Status status() const override { return {}; }

   private:
    std::vector<std::string> lines_ = made_up_documents(1, 100);
    std::size_t next_ = 0;
  } lines;
  const std::unordered_map<std::string, std::string> options = {
      {"vocab_size", "500"},       {"minloglevel", "2"},
      {"model_type", "bpe"},       {"normalization_rule_name", "identity"},
      {"byte_fallback", "true"},   {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "true"}};
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &lines, &model);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return Tokenizer::from_bytes(model, "test");
}

Tokens encode(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  return {ids.begin(), ids.end()};
}

constexpr const char* texts[] = {
    "A plain sentence, and one more.", "caf\xC3\xA9 \xE2\x82\xAC 5 \xF0\x9F\x98\x80\xF0\x9F\x98\x80 end",
    "   spaces    between,\n\n  and  lines\n   ", "\xE4\xB8\xAD\xE6\x96\x87 mixed \xE4\xB8\xAD", ""};

void expect_streams_are_the_text(const Tokenizer& tokenizer) {
  for (const char* text : texts) {
    SCOPED_TRACE(text);
    Tokens ids = encode(tokenizer, text);
    ASSERT_EQ(tokenizer.decode(ids), text);
    ids.insert(ids.end(), ids.begin(), ids.end());  // longer than a window
    const std::string whole = tokenizer.decode(ids);
    for (std::size_t prompt = 0; prompt <= ids.size(); ++prompt) {
      const Tokens before(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(prompt));
      const std::string shown = tokenizer.decode(before);
      if (!whole.starts_with(shown)) continue;  // inside a character: no text ends there
      TextStream stream(tokenizer, before);
      std::string added;
      for (std::size_t i = prompt; i < ids.size(); ++i) {
        const std::string piece = stream.push(ids[i]);
        EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos) << "half a character";
        added += piece;
      }
      added += stream.finish();
      ASSERT_EQ(shown + added, whole) << "after " << prompt << " tokens";
    }
  }
}

TEST(TextStream, AddsUpToTheText) {
  expect_streams_are_the_text(Tokenizer::from_bytes(made_up_tokenizer(), "test"));
  expect_streams_are_the_text(tokenizer_with_prefix());
}

TEST(TextStream, HoldsBackHalfACharacterOnly) {
  const Tokenizer tokenizer = Tokenizer::from_bytes(made_up_tokenizer(), "test");
  const Tokens euro = encode(tokenizer, "\xE2\x82\xAC");
  ASSERT_EQ(euro.size(), 3U);  // bytes: the training text has none
  TextStream stream(tokenizer, {});
  EXPECT_EQ(stream.push(euro[0]), "");
  EXPECT_EQ(stream.push(euro[1]), "");
  EXPECT_EQ(stream.push(euro[2]), "\xE2\x82\xAC");
  EXPECT_EQ(stream.push(euro[0]), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  // A byte that begins nothing is shown sooner or later: the stream does not stall.
  std::string added;
  for (int i = 0; i < 8; ++i) added += stream.push(euro[1]);
  EXPECT_FALSE(added.empty());
}

TEST(TextStream, IdsWithoutAPieceAreSilent) {
  const Tokenizer tokenizer = Tokenizer::from_bytes(made_up_tokenizer(), "test");
  const Tokens ids = encode(tokenizer, "one");
  TextStream stream(tokenizer, {tokenizer.eos_id(), 100'000});
  std::string added = stream.push(100'000);
  for (const std::int32_t id : ids) added += stream.push(id);
  EXPECT_EQ(added + stream.push(tokenizer.eos_id()) + stream.finish(), "one");
}

}  // namespace
}  // namespace vqlm::testing
