// Byte-level BPE against what PyPI's `tokenizers` made of the same texts (tests/tokenizers/make_fixtures.py).
#include "data/tokenizer/byte_level_bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/files/sha256.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"
#include "data/tokenizer/word_cache.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

using Ids = std::vector<std::uint32_t>;
using Json = nlohmann::json;

constexpr std::uint32_t block_size = 0x4000;
constexpr const char* families[] = {"gpt2", "roberta", "llama3", "qwen2", "smollm2", "cl100k", "o200k", "digit_runs"};

std::string fixture(const std::string& name) {
  return std::string(VQLM_SOURCE_DIR) + "/tests/tokenizers/" + name + ".json";
}

void replace_all(std::string& text, const std::string& what, const std::string& by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

const Json& goldens() {
  static const Json json = [] {
    std::string text = read_bytes(fixture("goldens"));
    replace_all(text, "@10000 spaces@", std::string(10'000, ' '));
    replace_all(text, "@3000 spaces@", std::string(3'000, ' '));
    replace_all(text, "@4000 a@", std::string(4'000, 'a'));
    return Json::parse(text);
  }();
  return json;
}

std::string short_sha256(std::string_view bytes) {
  return sha256_of(bytes).substr(0, 16);
}

std::string digest(const Ids& ids) {
  return short_sha256({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(ids[0])});
}

/// make_fixtures.py's code_points().
std::string code_points(std::uint32_t block) {
  std::string alone;
  std::string beside;
  for (std::uint32_t code = block * block_size; code < (block + 1) * block_size; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    append_utf8(alone, code);
    for (const char* neighbour : {"a", "1", " ", "\xCC\x96"}) {
      append_utf8(beside, code);
      beside += neighbour;
    }
  }
  return alone + beside;
}

class ByteLevelBpe : public testing::TestWithParam<const char*> {
 protected:
  const Json& golden() const { return goldens()["families"][GetParam()]; }
  Tokenizer tokenizer_ = Tokenizer::open(fixture(GetParam()));
};

TEST_P(ByteLevelBpe, GivesTheIdsOfTokenizersForOddTexts) {
  const Json& texts = goldens()["texts"];
  ASSERT_GT(texts.size(), 20u);
  WordCache words(tokenizer_);
  WordCache small(tokenizer_, 16);
  std::string decoded;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    Ids ids;
    tokenizer_.encode(text, ids);
    const Json& expected = golden()["ids"][i];
    if (expected.is_array()) {
      EXPECT_EQ(ids, expected.get<Ids>()) << "text " << i << ": " << text;
    } else {
      EXPECT_EQ(ids.size(), expected["count"].get<std::size_t>()) << "text " << i;
      EXPECT_EQ(digest(ids), expected["sha256"].get<std::string>()) << "text " << i;
    }
    for (WordCache* cache : {&words, &small}) {
      Ids cached;
      cache->encode(text, cached);
      EXPECT_EQ(cached, ids) << "text " << i;
    }
    decoded += tokenizer_.decode(std::vector<std::int32_t>(ids.begin(), ids.end()));
  }
  EXPECT_EQ(short_sha256(decoded), golden()["decoded"].get<std::string>());
  EXPECT_EQ(tokenizer_.vocab_size(), golden()["vocab_size"].get<std::int64_t>());
}

TEST_P(ByteLevelBpe, GivesTheIdsOfTokenizersForEveryCodePoint) {
  ASSERT_EQ(golden()["blocks"].size(), std::size_t{0x110000 / block_size});
  WordCache words(tokenizer_);
  for (std::uint32_t block = 0; block < golden()["blocks"].size(); ++block) {
    Ids ids;
    words.encode(code_points(block), ids);
    EXPECT_EQ(digest(ids), golden()["blocks"][block].get<std::string>()) << "code points from " << block * block_size;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ByteLevelBpe, testing::ValuesIn(families),
                         [](const auto& family) { return std::string(family.param); });

TEST(ByteLevelTokenizer, TellsWhatItIs) {
  const Tokenizer gpt2 = Tokenizer::open(fixture("gpt2"));
  EXPECT_EQ(gpt2.kind(), TokenizerKind::byte_level_bpe);
  EXPECT_STREQ(gpt2.file_name(), "tokenizer.json");
  EXPECT_EQ(gpt2.sha256(), sha256_of(read_bytes(fixture("gpt2"))));
  EXPECT_EQ(gpt2.eos_id(), 0);
  EXPECT_EQ(gpt2.piece(0), "<|endoftext|>");
  EXPECT_FALSE(gpt2.is_text_piece(0));
  const auto the = gpt2.id_of("\xC4\xA0the");
  ASSERT_TRUE(the.has_value());
  EXPECT_TRUE(gpt2.is_text_piece(*the));
  EXPECT_EQ(gpt2.shown(*the), "\xE2\x96\x81the");
  EXPECT_EQ(gpt2.begin_id(), std::nullopt);
  const Tokenizer llama3 = Tokenizer::open(fixture("llama3"));
  EXPECT_EQ(llama3.begin_id(), llama3.id_of("<|begin_of_text|>"));
  EXPECT_EQ(llama3.eos_id(), llama3.id_of("<|end_of_text|>"));
}

TEST(ByteLevelTokenizer, TakesTheEndOfTextFromTheFilesBesideIt) {
  const TemporaryFolder folder;
  write_bytes(folder.file("tokenizer.json"), read_bytes(fixture("qwen2")));
  const auto eos = [&] { return Tokenizer::open(folder.path()).eos_id(); };
  EXPECT_EQ(eos(), 0);  // <|endoftext|>
  write_bytes(folder.file("config.json"), R"({"eos_token_id": 1})");
  EXPECT_EQ(eos(), 1);
  write_bytes(folder.file("tokenizer_config.json"), R"({"eos_token": {"content": "<|im_end|>"}})");
  EXPECT_EQ(eos(), 2);
  write_bytes(folder.file("generation_config.json"), R"({"eos_token_id": [0, 2]})");  // several: does not tell
  EXPECT_EQ(eos(), 2);
  write_bytes(folder.file("generation_config.json"), R"({"eos_token_id": [1]})");
  EXPECT_EQ(eos(), 1);
  const auto error = [&] {
    try {
      eos();
    } catch (const Error& caught) {
      return std::string(caught.what());
    }
    return std::string("no error");
  };
  write_bytes(folder.file("generation_config.json"), R"({"eos_token_id": 999})");
  EXPECT_THAT(error(), testing::HasSubstr("generation_config.json: eos_token_id is 999"));
  write_bytes(folder.file("generation_config.json"), "{}");
  write_bytes(folder.file("tokenizer_config.json"), R"({"eos_token": "<eos>"})");
  EXPECT_THAT(error(), testing::HasSubstr("tokenizer_config.json: eos_token is \"<eos>\", which the tokenizer"));
}

TEST(ByteLevelTokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = Tokenizer::open(fixture("gpt2"));
  Ids ids;
  EXPECT_THROW(tokenizer.encode("a\xFF", ids), Error);
  EXPECT_THROW(tokenizer.encode("\xED\xA0\x80", ids), Error);  // a surrogate
}

TEST(Utf8, ReplacesWhatIsNoCharacter) {  // the Unicode Standard, 3.9, tables 3-8 to 3-11
  const std::string r(replacement_character);
  EXPECT_EQ(valid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(valid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(valid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(valid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

}  // namespace
}  // namespace vqlm
