#include "data/tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/tokenizer/pattern_rewrite.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

using Json = nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

Json gpt2() {
  return Json::parse(read_bytes(std::string(VQLM_SOURCE_DIR) + "/tests/tokenizers/gpt2.json"));
}

template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// The message about a file with one change.
std::string refusal(const std::function<void(Json&)>& change) {
  Json json = gpt2();
  change(json);
  return error_of([&] { Tokenizer::from_bytes(json.dump(), "t/tokenizer.json"); });
}

auto names(const std::string& what) {
  return AllOf(HasSubstr("t/tokenizer.json: " + what), HasSubstr("not supported"), HasSubstr("--from-tokens"));
}

TEST(TokenizerJson, RefusesByNameWhatItCannotReproduce) {
  EXPECT_THAT(refusal([](Json& j) { j["model"]["type"] = "Unigram"; }), names("model.type is \"Unigram\""));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["type"] = "WordPiece"; }), names("model.type is \"WordPiece\""));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["dropout"] = 0.1; }), names("model.dropout is 0.1"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }), names("model.end_of_word_suffix"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; }),
              names("model.continuing_subword_prefix"));
  EXPECT_THAT(refusal([](Json& j) {
                j["normalizer"] = {{"type", "NFKC"}};
              }),
              names("normalizer is {\"type\":\"NFKC\"}"));
  EXPECT_THAT(refusal([](Json& j) {
                j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}};
              }),
              names("normalizer.normalizers[1] is {\"type\":\"Lowercase\"}"));
  EXPECT_THAT(refusal([](Json& j) { j["pre_tokenizer"] = nullptr; }), names("pre_tokenizer is null"));
  EXPECT_THAT(refusal([](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; }), names("pre_tokenizer is {"));
  EXPECT_THAT(refusal([](Json& j) { j["decoder"] = {{"type", "WordPiece"}}; }), names("decoder.type is \"WordPiece\""));
  EXPECT_THAT(refusal([](Json& j) { j["decoder"] = nullptr; }), names("decoder is null"));
  EXPECT_THAT(refusal([](Json& j) {
                j["post_processor"] = {{"type", "BertProcessing"}};
              }),
              names("post_processor.type is \"BertProcessing\""));
  EXPECT_THAT(refusal([](Json& j) { j["added_tokens"][0]["single_word"] = true; }),
              names("added_tokens[0].single_word is true"));
}

TEST(TokenizerJson, RefusesOtherWaysToSplit) {
  const auto with = [](const Json& split) {
    return refusal([&](Json& j) {
      j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, j["pre_tokenizer"]}}};
    });
  };
  const auto split = [](const std::string& pattern, const char* behavior) -> Json {
    return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", behavior}, {"invert", false}};
  };
  EXPECT_EQ(with(split("\\p{N}", "Isolated")), "no error");
  EXPECT_THAT(with(split("a", "MergedWithNext")),
              names("pre_tokenizer.pretokenizers[0].behavior is \"MergedWithNext\""));
  EXPECT_THAT(with({{"type", "Whitespace"}}), names("pre_tokenizer.pretokenizers[0] is {\"type\":\"Whitespace\"}"));
  EXPECT_THAT(with(gpt2()["pre_tokenizer"]), names("pre_tokenizer.pretokenizers[1] is {"));  // ByteLevel twice
  EXPECT_THAT(with(split("a*", "Isolated")), HasSubstr("matches the empty text"));
  EXPECT_THAT(with(split("(a", "Isolated")), HasSubstr("is none"));
  EXPECT_THAT(with(split("^a", "Isolated")), HasSubstr("the regular expression \"^a\" has the anchor ^"));
}

TEST(TokenizerJson, SaysWhatIsDamaged) {
  EXPECT_THAT(error_of([] { Tokenizer::from_bytes("{", "t.json"); }), HasSubstr("t.json: is no JSON"));
  EXPECT_THAT(error_of([] { Tokenizer::from_bytes("", "t.json"); }), HasSubstr("t.json: is no JSON"));
  EXPECT_THAT(error_of([] { Tokenizer::from_bytes("[]", "t.json"); }), HasSubstr("t.json:  is no object"));
  EXPECT_THAT(error_of([] { Tokenizer::from_bytes("{}", "t.json"); }), HasSubstr("t.json: model is missing"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["merges"].push_back("a"); }), HasSubstr("is no pair of tokens"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["merges"].push_back("a \xC4\xA0the"); }),
              HasSubstr("makes or takes \"a\xC4\xA0the\", which is not in model.vocab"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["vocab"]["b"] = j["model"]["vocab"]["a"]; }),
              HasSubstr("of another token"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["vocab"]["b"] = -1; }), HasSubstr("model.vocab[\"b\"] is no id"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["vocab"]["b"] = 1 << 24; }), HasSubstr("is no id"));
  EXPECT_THAT(refusal([](Json& j) { j["added_tokens"][0]["id"] = 5; }),
              HasSubstr("added_tokens[0] is \"<|endoftext|>\" with id 5, which tokenizers would number 0"));
  EXPECT_THAT(refusal([](Json& j) { j["added_tokens"][0]["content"] = ""; }), HasSubstr("is an empty token"));
}

TEST(TokenizerJson, LeavesOutBytesThatHaveNoToken) {
  Json json = gpt2();
  json["model"]["vocab"].erase("!");
  Json merges = Json::array();
  for (const Json& merge : json["model"]["merges"]) {
    if (merge.dump().find('!') == std::string::npos) merges.push_back(merge);
  }
  json["model"]["merges"] = merges;
  const Tokenizer tokenizer = Tokenizer::from_bytes(json.dump(), "t.json");
  std::vector<std::uint32_t> with, without;
  tokenizer.encode("a!b", with);
  tokenizer.encode("!", with);
  tokenizer.encode("ab", without);
  EXPECT_EQ(with.size(), without.size() + 1);  // "!" is a word of its own, and "a" and "b" are two then
  json["model"]["unk_token"] = "<|endoftext|>";
  EXPECT_THAT(error_of([&] { Tokenizer::from_bytes(json.dump(), "t.json"); }),
              HasSubstr("model.unk_token is \"<|endoftext|>\", which is not supported, only null where bytes"));
  EXPECT_EQ(refusal([](Json& j) { j["model"]["unk_token"] = "<|endoftext|>"; }), "no error");  // never needed
}

TEST(TokenizerJson, IsFoundInAFolder) {
  const TemporaryFolder folder;
  EXPECT_FALSE(Tokenizer::is_in(folder.path()));
  EXPECT_THAT(error_of([&] { Tokenizer::open(folder.path()); }),
              HasSubstr("holds neither tokenizer.model nor tokenizer.json; give"));
  write_bytes(folder.file("vocab.json"), "{}");
  EXPECT_THAT(error_of([&] { Tokenizer::open(folder.path()); }), HasSubstr("save_pretrained"));
  write_bytes(folder.file("tokenizer.json"), gpt2().dump());
  EXPECT_TRUE(Tokenizer::is_in(folder.path()));
  EXPECT_EQ(Tokenizer::open(folder.path()).kind(), TokenizerKind::byte_level_bpe);
  write_bytes(folder.file("tokenizer.model"), made_up_tokenizer());
  EXPECT_EQ(Tokenizer::open(folder.path()).kind(), TokenizerKind::sentencepiece);
}

TEST(PatternRewrite, KeepsTheMeaning) {
  const auto rewritten = [](const char* pattern) { return rewritten_pattern(pattern, "t").unicode; };
  EXPECT_EQ(rewritten("(?i:'s|ll)"), "(?i:\\x{27}s|ll)");
  EXPECT_EQ(rewritten("(a)?+b*?c{2,3}"), "(?:a)?+b*?c{2,3}");
  EXPECT_EQ(rewritten("a{,3}"), "a{0,3}");
  EXPECT_EQ(rewritten("[^\\r\\n\\x{41}-\\u0043\\-]"), "[^\\x{D}\\x{A}A-C\\x{2D}]");
  EXPECT_THAT(rewritten("\\s"), AllOf(testing::StartsWith("[\\x{9}-\\x{D}\\x{20}"), testing::EndsWith("\\x{3000}]")));
  EXPECT_THAT(rewritten("[\\S]"), AllOf(HasSubstr("\\x{1681}-\\x{1FFF}"), testing::EndsWith("\\x{3001}-\\x{10FFFF}]")));
  EXPECT_THAT(rewritten("[^\\p{L}x]"), AllOf(testing::StartsWith("[^\\p{L}\\x{1C89}"), testing::EndsWith("x]")));
  EXPECT_THAT(rewritten("\\P{L}"), testing::StartsWith("[^\\p{L}"));
  EXPECT_EQ(literal_pattern("a.\xC3\xA9").unicode, "\\x{61}\\x{2E}\\x{E9}");
}

TEST(PatternRewrite, KnowsWhatOfAClassIsAscii) {
  const auto ascii = [](const char* pattern) { return rewritten_pattern(pattern, "t").ascii; };
  EXPECT_EQ(ascii("[^\\s\\p{L}\\p{N}]+"), "[^\\x{9}-\\x{D}\\x{20}A-Za-z0-9]+");
  EXPECT_EQ(ascii("\\p{M}\\d\\P{Lu}"), "[\\x{80}][0-9][^A-Z]");
  EXPECT_EQ(ascii("[x-\xC3\xA9]\xC3\xA9"), "[x-\\x{80}]\\x{80}");
  EXPECT_EQ(literal_pattern("a\xC3\xA9").ascii, "\\x{61}\\x{80}");
}

TEST(PatternRewrite, RefusesWhatMayMeanSomethingElse) {
  for (const char* pattern :
       {"a$",     "\\w",   "\\h",         "\\b",     "\\xff",        "\\p{Han}",      "[\\P{L}]", "[[:alpha:]]",
        "[a&&b]", "[]",    "[a",          "(?i)a",   "(?<n>a)",      "(*F)",          "a{2}?",    "a{2,3}+",
        "a{x}",   "a**",   "*a",          "(?i:ss)", "(?i:\\p{Lu})", "(?i:\xC3\xA9)", "[b-a]",    "a)",
        "\\",     "\\u12", "\\x{110000}", "[\\s-a]"}) {
    EXPECT_THAT(error_of([&] { rewritten_pattern(pattern, "t"); }),
                AllOf(testing::StartsWith("t: the regular expression \""), HasSubstr("--from-tokens")))
        << pattern;
  }
}

}  // namespace
}  // namespace vqlm
