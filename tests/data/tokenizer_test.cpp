#include "data/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "data/files/sha256.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

using testing::HasSubstr;

template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string round_trip(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  return tokenizer.decode(std::vector<std::int32_t>(ids.begin(), ids.end()));
}

TEST(Sha256, AgreesWithTheStandardsExamples) {  // FIPS 180-2, appendix B
  EXPECT_EQ(sha256_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  TemporaryFolder folder;
  const std::string bytes = made_up_text(3, 400'000);  // more than one piece of 1 MiB
  ASSERT_GT(bytes.size(), std::size_t{1} << 20);
  write_bytes(folder.file("a"), bytes);
  EXPECT_EQ(sha256_of_file(folder.file("a")), sha256_of(bytes));
  EXPECT_THAT(error_of([&] { sha256_of_file(folder.file("b")); }), HasSubstr("b: cannot be opened"));
}

TEST(Tokenizer, TrainedModelHasTheSizeAskedForAndIsTheSameAgain) {
  const std::string model = made_up_tokenizer(600);
  EXPECT_EQ(model, made_up_tokenizer(600));
  TemporaryFolder folder;
  write_bytes(folder.file("t.model"), model);
  const Tokenizer tokenizer = Tokenizer::open(folder.file("t.model"));
  EXPECT_EQ(tokenizer.vocab_size(), 600);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.sha256(), sha256_of(model));
  EXPECT_TRUE(tokenizer.traits().bpe);
  EXPECT_TRUE(tokenizer.traits().byte_fallback);
  EXPECT_TRUE(tokenizer.traits().plain_normalization);
  EXPECT_FALSE(tokenizer.traits().dummy_prefix);
  EXPECT_FALSE(tokenizer.is_text_piece(tokenizer.eos_id()));
}

TEST(Tokenizer, TrainedModelKeepsEveryByte) {
  const Tokenizer tokenizer = Tokenizer::from_bytes(made_up_tokenizer(), "test");
  EXPECT_EQ(round_trip(tokenizer, ""), "");
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const std::string text = seed % 3 == 0 ? made_up_text(seed, 100) : odd_text(seed, 1 + seed, true);
    ASSERT_EQ(round_trip(tokenizer, text), text) << "seed " << seed;
  }
}

TEST(Tokenizer, UsesItsPieces) {
  const Tokenizer tokenizer = Tokenizer::from_bytes(made_up_tokenizer(), "test");
  const std::string text = made_up_text(77, 2000);
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  EXPECT_LT(ids.size(), text.size() / 2);  // a byte-level model would need text.size()
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string& piece = tokenizer.piece(id);
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const bool alone = !tokenizer.is_text_piece(id) || piece.size() == 1;
    EXPECT_TRUE(alone || std::none_of(piece.begin(), piece.end(), is_digit)) << piece;  // digits stand alone
  }
}

TEST(Tokenizer, HasOnePieceForTheLineEnd) {
  const Tokenizer tokenizer = Tokenizer::from_bytes(made_up_tokenizer(), "test");
  std::vector<std::uint32_t> ids;
  tokenizer.encode("\n\n", ids);
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(tokenizer.piece(static_cast<std::int32_t>(ids[0])), "\n");
}

TEST(Tokenizer, SaysWhyItCannotBeTrained) {
  EXPECT_THAT(error_of([] {
                train_tokenizer({"one two three"}, {5000, 1});
              }),
              testing::AllOf(HasSubstr("a tokenizer of 5000 pieces cannot be trained on 1 documents"),
                             HasSubstr("choose another --train-tokenizer size")));
  EXPECT_THAT(error_of([] {
                train_tokenizer(made_up_documents(1, 10), {100, 1});
              }),
              HasSubstr("a tokenizer of 100 pieces cannot be trained"));
  EXPECT_THAT(error_of([] { train_tokenizer({}, {500, 1}); }), HasSubstr("hold no text"));
  const std::string error = error_of([] { train_tokenizer({"one two three"}, {5000, 1}); });
  EXPECT_EQ(error.find('\n'), std::string::npos);
  EXPECT_EQ(error.find("trainer_interface"), std::string::npos);
}

TEST(Tokenizer, RefusesWhatIsNoModel) {
  TemporaryFolder folder;
  const std::string model = made_up_tokenizer();
  const auto load = [&](const std::string& bytes) {
    write_bytes(folder.file("t.model"), bytes);
    return error_of([&] { Tokenizer::open(folder.file("t.model")); });
  };
  EXPECT_THAT(load(""), HasSubstr("t.model: is empty"));
  EXPECT_THAT(load("{\"model\": {\"type\": \"BPE\"}}"),
              HasSubstr("t.model: is not a SentencePiece model; give the .model file"));
  EXPECT_THAT(load(model.substr(0, model.size() / 2)), HasSubstr("t.model: is not a SentencePiece model"));
  EXPECT_THAT(error_of([&] { Tokenizer::open(folder.file("none.model")); }), HasSubstr("none.model: cannot be opened"));
  const Tokenizer tokenizer = Tokenizer::from_bytes(model, "test");
  EXPECT_THAT(error_of([&] { tokenizer.decode(std::vector<std::int32_t>{600}); }), HasSubstr("token 600 is outside"));
}

}  // namespace
}  // namespace vqlm
