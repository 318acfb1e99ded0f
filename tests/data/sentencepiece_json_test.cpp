#include "data/tokenizer/sentencepiece_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_trainer.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

const std::string& trained_model() {
  static const std::string model = [] {
    std::vector<std::string> documents;
    for (std::uint64_t seed = 0; seed < 40; ++seed) documents.push_back(made_up_text(seed, 2000));
    return train_tokenizer(documents, {.vocab_size = 400, .threads = 1});
  }();
  return model;
}

std::vector<std::uint32_t> ids_of(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  return ids;
}

/// What is said of the trained model's tokenizer.json after a change.
std::string refusal(const std::function<void(Json&)>& change) {
  Json json = Json::parse(tokenizer_json_of(read_sentencepiece(trained_model(), "t.model"), "t.model"));
  change(json);
  try {
    Tokenizer::from_bytes(json.dump(), "t/tokenizer.json");
    return "no error";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(SentencePieceJson, GivesTheModelsIdsAgain) {
  const std::string texts[] = {made_up_text(77, 3000),
                               "  two  spaces\n\n\tand 123 tabs\r\n",
                               "caf\xC3\xA9 \xF0\x9F\x98\x80",
                               "The</s> end",
                               "",
                               "\n"};
  const Tokenizer model = Tokenizer::from_bytes(trained_model(), "tokenizer.model");
  SentencePieceFile file = read_sentencepiece(trained_model(), "tokenizer.model");
  const Tokenizer again = Tokenizer::from_bytes(write_sentencepiece(file), "tokenizer.model");
  const Tokenizer kept = Tokenizer::from_bytes(tokenizer_json_of(file, "tokenizer.model"), "tokenizer.json");
  EXPECT_EQ(kept.kind(), TokenizerKind::sentencepiece);
  EXPECT_STREQ(kept.file_name(), "tokenizer.json");
  EXPECT_EQ(kept.vocab_size(), model.vocab_size());
  EXPECT_EQ(kept.eos_id(), model.eos_id());
  for (const std::string& text : texts) {
    EXPECT_EQ(ids_of(again, text), ids_of(model, text)) << text;
    EXPECT_EQ(ids_of(kept, text), ids_of(model, text)) << text;
  }
}

TEST(SentencePieceJson, KeepsUnigramWithItsNormalization) {
  SentencePieceFile file = read_sentencepiece(trained_model(), "t.model");
  file.bpe = false;  // the pieces' ranks as log-probabilities
  for (std::size_t id = 0; id < file.pieces.size(); ++id) {
    file.pieces[id].score = -1.0f - 0.01f * static_cast<float>(id);
    if (file.pieces[id].type == SentencePieceFile::Type::user_defined)
      file.pieces[id].type = SentencePieceFile::Type::normal;
  }
  file.dummy_prefix = true;
  file.remove_extra_whitespaces = true;
  const Tokenizer model = Tokenizer::from_bytes(write_sentencepiece(file), "tokenizer.model");
  const std::string json = tokenizer_json_of(file, "tokenizer.model");
  const SentencePieceFile kept = sentencepiece_of_json(json, "tokenizer.json").value();
  EXPECT_FALSE(kept.bpe);
  EXPECT_TRUE(kept.dummy_prefix && kept.remove_extra_whitespaces && kept.byte_fallback);
  for (const char* text : {"  two  spaces ", "banana", "\xE6\x97\xA5"})
    EXPECT_EQ(ids_of(Tokenizer::from_bytes(json, "tokenizer.json"), text), ids_of(model, text)) << text;
}

TEST(SentencePieceJson, RefusesByNameWhatNoModelDoes) {
  EXPECT_EQ(refusal([](Json&) {}), "no error");
  EXPECT_THAT(refusal([](Json& j) { j["model"]["merges"].erase(0); }), HasSubstr("merges that its pieces allow"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["merges"].push_back(j["model"]["merges"][0]); }),
              HasSubstr("by merges of several ranks"));
  EXPECT_THAT(refusal([](Json& j) { j["normalizer"] = {{"type", "NFC"}}; }), HasSubstr("normalizer.type is \"NFC\""));
  EXPECT_THAT(refusal([](Json& j) { j["pre_tokenizer"]["prepend_scheme"] = "always"; }),
              HasSubstr("puts a space behind tokens that are not special"));
  EXPECT_THAT(refusal([](Json& j) { j["added_tokens"][0]["id"] = 4'000'000; }), HasSubstr("has the id 4000000"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["unk_token"] = "<none>"; }),
              HasSubstr("has no token for what is unknown"));
  EXPECT_THAT(refusal([](Json& j) { j["model"]["vocab"].erase("a"); }), HasSubstr("copy the tokenizer.model"));
}

}  // namespace
}  // namespace vqlm
