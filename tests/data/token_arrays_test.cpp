#include "data/prepare/token_arrays.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/error.h"
#include "data/tokenizer/tokenizer_files.h"
#include "tests/data/id_files.h"
#include "tests/data/temporary_folder.h"

namespace vqlm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Documents = std::vector<std::vector<std::uint32_t>>;

class TokenArraysTest : public testing::Test {
 protected:
  /// The documents of a file with these bytes.
  Documents documents(const std::string& name, const std::string& bytes, std::optional<std::uint32_t> eos = {},
                      std::int64_t vocab_size = 100'000) {
    write_bytes(folder_.file(name), bytes);
    TokenDocuments reader(folder_.file(name), vocab_size, eos);
    Documents found;
    for (std::vector<std::uint32_t> ids; reader.next(ids);) found.push_back(ids);
    return found;
  }
  /// What is said to a file with these bytes; the fuzzers' promise holds too: one line.
  std::string refusal(const std::string& name, const std::string& bytes, std::int64_t vocab_size = 100'000) {
    try {
      documents(name, bytes, {}, vocab_size);
    } catch (const Error& error) {
      EXPECT_THAT(std::string(error.what()), testing::Not(HasSubstr("\n")));
      return error.what();
    }
    return "no error";
  }

  TemporaryFolder folder_;
};

TEST_F(TokenArraysTest, ReadsEveryIntegerTypeOfNumPy) {
  const Documents expected = {{1, 2, 100}};
  EXPECT_EQ(documents("a.npy", npy("<u2", little<std::uint16_t>({1, 2, 100}))), expected);
  EXPECT_EQ(documents("a.npy", npy("<i2", little<std::int16_t>({1, 2, 100}))), expected);
  EXPECT_EQ(documents("a.npy", npy("<u4", little<std::uint32_t>({1, 2, 100}))), expected);
  EXPECT_EQ(documents("a.npy", npy("<i4", little<std::int32_t>({1, 2, 100}))), expected);
  EXPECT_EQ(documents("a.npy", npy("<u8", little<std::uint64_t>({1, 2, 100}))), expected);
  EXPECT_EQ(documents("a.npy", npy("<i8", little<std::int64_t>({1, 2, 100}))), expected);
  EXPECT_EQ(documents("a.npy", npy("|u1", little<std::uint8_t>({1, 2, 100}))), expected);
  EXPECT_EQ(documents("a.npy", npy("<i8", "")), Documents{});
  // What numpy.save(numpy.array([7, 8], "<u2")) of NumPy 1.24 writes, to the byte.
  const std::string saved = std::string("\x93NUMPY\x01\x00\x76\x00", 10) +
                            "{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }" + std::string(60, ' ') + "\n" +
                            std::string("\x07\x00\x08\x00", 4);
  EXPECT_EQ(documents("a.npy", saved), (Documents{{7, 8}}));
}

TEST_F(TokenArraysTest, ReadsEveryHeaderOfNumPy) {
  const std::string ids = little<std::uint16_t>({1, 2, 3});
  const std::string other_order = "{\"shape\":(3,),\"fortran_order\":True,\"descr\":\"<u2\"}";
  for (const int version : {1, 2, 3}) {
    EXPECT_EQ(documents("a.npy", npy_with_header(other_order, ids, version)), (Documents{{1, 2, 3}}));
  }
  EXPECT_THAT(refusal("a.npy", npy_with_header(other_order, ids, 4)), HasSubstr("version 4"));
}

TEST_F(TokenArraysTest, RefusesHeadersOfNumPy) {
  const std::string ids = little<std::uint16_t>({1, 2, 3});
  const auto header = [&](const std::string& text) { return refusal("a.npy", npy_with_header(text, ids)); };
  const auto of = [&](const std::string& type, const std::string& shape) {
    return header("{'descr': " + type + ", 'fortran_order': False, 'shape': " + shape + ", }");
  };
  EXPECT_EQ(of("'<u2'", "(3,)"), "no error");
  for (const char* type : {"'>u2'", "'<f4'", "'|b1'", "'<u3'", "'<u16'", "'|S2'", "'='", "''", "'<u2\n'"}) {
    EXPECT_THAT(of(type, "(3,)"), HasSubstr("little-endian integers")) << type;
  }
  EXPECT_THAT(of("[('a', '<u2')]", "(3,)"), HasSubstr("records with fields"));
  for (const char* shape : {"()", "(3)", "(3, 1)", "(-3,)", "(99999999999999999999,)", "(,)"}) {
    EXPECT_THAT(of("'<u2'", shape), HasSubstr("one axis")) << shape;
  }
  for (const char* shape : {"(2,)", "(4,)", "(18446744073709551615,)", "(9223372036854775809,)"}) {
    EXPECT_THAT(of("'<u2'", shape), HasSubstr("6 bytes follow")) << shape;
  }
  for (const char* text : {"", "{", "{}", "{'descr': '<u2'}", "{'descr': '<u2', 'descr': '<u2', 'shape': (3,)}",
                           "{'descr': '<u2', 'fortran_order': 0, 'shape': (3,), }", "{'descr: '<u2'}",
                           "{'color': 'red'}", "{'descr': '<u2', 'fortran_order': False, 'shape': (3,), 'more': 1}",
                           "{'descr': '<u2', 'fortran_order': False, 'shape': (3,), } and more", "[1]", "{'descr'"}) {
    EXPECT_THAT(header(text), HasSubstr("header of a NumPy array is damaged")) << text;
  }
}

TEST_F(TokenArraysTest, RefusesFilesCutAnywhere) {
  const std::string array = npy("<u4", little<std::uint32_t>({1, 2, 3}));
  const std::string llmc = llmc_file(little<std::uint16_t>({1, 2, 3}), 20240520, 1, 3);
  for (std::size_t kept = 8; kept < array.size(); ++kept) {
    EXPECT_THAT(refusal("a.npy", array.substr(0, kept)), HasSubstr("cut off")) << kept;
  }
  for (std::size_t kept = 4; kept < llmc.size(); kept += 3) {
    EXPECT_THAT(refusal("a.bin", llmc.substr(0, kept)), HasSubstr("cut off")) << kept;
  }
  EXPECT_THAT(refusal("a.npy", array + "x"), HasSubstr("13 bytes follow"));
  EXPECT_THAT(refusal("a.bin", llmc + "x"), HasSubstr("7 bytes follow"));
}

TEST_F(TokenArraysTest, ReadsLlmC) {
  EXPECT_EQ(documents("a.bin", llmc_file(little<std::uint16_t>({1, 65535}), 20240520, 1, 2)), (Documents{{1, 65535}}));
  EXPECT_EQ(documents("a.bin", llmc_file(little<std::uint32_t>({1, 99999}), 20240801, 7, 2)), (Documents{{1, 99999}}));
  const std::string ids = little<std::uint16_t>({1, 2});
  EXPECT_THAT(refusal("a.bin", llmc_file(ids, 20240520, 2, 2)), HasSubstr("version 2"));
  EXPECT_THAT(refusal("a.bin", llmc_file(ids, 20240801, 1, 2)), HasSubstr("version 1"));
  EXPECT_THAT(refusal("a.bin", llmc_file(ids, 20240520, 1, -1)), HasSubstr("-1 ids"));
}

TEST_F(TokenArraysTest, SplitsAfterTheEndOfText) {
  const std::string bytes = npy("<u2", little<std::uint16_t>({0, 0, 5, 6, 0, 7}));
  EXPECT_EQ(documents("a.npy", bytes, 0), (Documents{{0}, {0}, {5, 6, 0}, {7}}));
  EXPECT_EQ(documents("a.npy", bytes, 9), (Documents{{0, 0, 5, 6, 0, 7}}));
}

TEST_F(TokenArraysTest, CutsWhatHasNoEnds) {
  const std::size_t n = 2 * TokenDocuments::ids_without_ends + 3;
  std::vector<std::uint16_t> ids(n);
  std::iota(ids.begin(), ids.end(), std::uint16_t{0});
  const Documents found = documents("a.npy", npy("<u2", little(ids)));
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[1].size(), TokenDocuments::ids_without_ends);
  EXPECT_EQ(found[2].size(), 3u);
  std::vector<std::uint32_t> all;
  for (const auto& document : found) all.insert(all.end(), document.begin(), document.end());
  EXPECT_TRUE(std::equal(all.begin(), all.end(), ids.begin(), ids.end()));
  // With an end of text that comes once in 300,000 ids, across the reader's pieces of 262,144.
  std::vector<std::uint16_t> rare(600'001, 1);
  rare[299'999] = rare[599'999] = 0;
  const Documents two = documents("a.npy", npy("<u2", little(rare)), 0);
  ASSERT_EQ(two.size(), 3u);
  EXPECT_EQ(two[0].size(), 300'000u);
  EXPECT_EQ(two[1].size(), 300'000u);
  EXPECT_THAT(two[2], ElementsAre(1u));
}

TEST_F(TokenArraysTest, NamesTheIdOutsideTheVocabulary) {
  EXPECT_THAT(refusal("a.npy", npy("<i4", little<std::int32_t>({5, -7}))), HasSubstr("id 1 is -7"));
  EXPECT_THAT(refusal("a.npy", npy("<i8", little<std::int64_t>({5, 6, std::int64_t{1} << 40}))),
              HasSubstr("id 2 is 1099511627776"));
  EXPECT_THAT(refusal("a.npy", npy("<u8", little<std::uint64_t>({~std::uint64_t{0}}))),
              HasSubstr("id 0 is 18446744073709551615"));
  EXPECT_THAT(refusal("a.npy", npy("<u2", little<std::uint16_t>({9, 10})), 10), HasSubstr("id 1 is 10, outside the"));
  EXPECT_EQ(refusal("a.npy", npy("<u2", little<std::uint16_t>({9, 10})), 11), "no error");
  std::vector<std::uint16_t> many(300'000, 1);
  many[270'001] = 999;
  EXPECT_THAT(refusal("a.npy", npy("<u2", little(many)), 500), HasSubstr("id 270001 is 999"));
}

TEST_F(TokenArraysTest, RefusesWhatItCannotName) {
  EXPECT_THAT(refusal("a.bin", little<std::uint16_t>({1, 2, 3})), HasSubstr("--dtype uint16"));
  EXPECT_THAT(refusal("a.bin", ""), HasSubstr("--dtype uint16"));
  EXPECT_THAT(refusal("a.idx", megatron({{1}}).index), HasSubstr("give the .bin file"));
  std::filesystem::create_directory(folder_.file("folder"));
  EXPECT_THROW(TokenDocuments(folder_.file("folder"), 10, {}), Error);
  EXPECT_THROW(TokenDocuments(folder_.file("missing"), 10, {}), Error);
}

class MegatronTest : public TokenArraysTest {
 protected:
  std::string refused(const MegatronPair& pair) {
    write_bytes(folder_.file("m.idx"), pair.index);
    return refusal("m.bin", pair.data);
  }
};

TEST_F(MegatronTest, ReadsItsOwnDocuments) {
  // Sentences of documents; a document without sentences, a sentence without ids.
  const MegatronPair pair = megatron({{2, 1}, {}, {3}, {0, 1}});
  write_bytes(folder_.file("m.idx"), pair.index);
  EXPECT_EQ(documents("m.bin", pair.data, 1), (Documents{{0, 1, 2}, {3, 4, 5}, {6}}));
}

TEST_F(MegatronTest, ReadsEveryIntegerType) {
  for (const auto& [code, data] : std::vector<std::pair<int, std::string>>{{1, little<std::uint8_t>({4, 5})},
                                                                           {2, little<std::int8_t>({4, 5})},
                                                                           {3, little<std::int16_t>({4, 5})},
                                                                           {4, little<std::int32_t>({4, 5})},
                                                                           {5, little<std::int64_t>({4, 5})},
                                                                           {8, little<std::uint16_t>({4, 5})}}) {
    const int width = static_cast<int>(data.size() / 2);
    write_bytes(folder_.file("m.idx"), megatron_index(code, {2}, {0}, {0, 1}));
    EXPECT_EQ(documents("m.bin", data), (Documents{{4, 5}})) << code << " " << width;
  }
}

TEST_F(MegatronTest, RefusesDamagedIndexes) {
  const std::string data = little<std::uint16_t>({4, 5, 6});
  const auto index = [&](const std::vector<std::int32_t>& lengths, const std::vector<std::int64_t>& pointers,
                         const std::vector<std::int64_t>& documents) {
    return refused({data, megatron_index(8, lengths, pointers, documents)});
  };
  EXPECT_EQ(index({2, 1}, {0, 4}, {0, 1, 2}), "no error");
  EXPECT_THAT(index({2, 1}, {0, 2}, {0, 1, 2}), HasSubstr("sequence 1 begins at byte 2, not at 4"));
  EXPECT_THAT(index({2, 1}, {0, -4}, {0, 1, 2}), HasSubstr("sequence 1 begins at byte -4"));
  EXPECT_THAT(index({2, 2}, {0, 4}, {0, 1, 2}), HasSubstr("sequence 1 has 2 ids, the .bin file has 1 left"));
  EXPECT_THAT(index({2, -1}, {0, 4}, {0, 1, 2}), HasSubstr("sequence 1 has -1 ids"));
  EXPECT_THAT(index({2}, {0}, {0, 1}), HasSubstr("its sequences have 2 ids, the .bin file 3"));
  EXPECT_THAT(index({2, 1}, {0, 4}, {0, 1}), HasSubstr("its documents have 1 of 2 sequences"));
  EXPECT_THAT(index({2, 1}, {0, 4}, {1, 2}), HasSubstr("entry 0 of the document index is 1"));
  EXPECT_THAT(index({2, 1}, {0, 4}, {0, 3}), HasSubstr("entry 1 of the document index is 3, outside [0, 2]"));
  EXPECT_THAT(index({2, 1}, {0, 4}, {0, 2, 1}), HasSubstr("entry 2 of the document index is 1, outside [2, 2]"));
  EXPECT_THAT(index({2, 1}, {0, 4}, {0, -1}), HasSubstr("is -1"));
  EXPECT_THAT(index({2, 1}, {0, 4}, {}), HasSubstr("document index is empty"));
  const std::string good = megatron_index(8, {2, 1}, {0, 4}, {0, 1, 2});
  EXPECT_THAT(refused({data, good + "x"}), HasSubstr("which is not what its 83 bytes hold"));
  EXPECT_THAT(refused({data + "x", good}), HasSubstr("no whole number of ids"));
  for (std::size_t kept = 9; kept < good.size(); ++kept) {
    EXPECT_THAT(refused({data, good.substr(0, kept)}), HasSubstr("m.idx")) << kept;
  }
  for (const int code : {0, 6, 7, 9, 255}) {
    EXPECT_THAT(refused({data, megatron_index(code, {2, 1}, {0, 4}, {0, 1, 2})}), HasSubstr("type code")) << code;
  }
  std::string other = good;
  other[9] = 2;
  EXPECT_THAT(refused({data, other}), HasSubstr("index version 2"));
  EXPECT_THAT(refused({data, "TNTIDX" + good}), HasSubstr("does not begin with MMIDIDX"));
  std::string huge = good;
  huge[25] = '\x80';  // 2^63 sequences: 12 bytes each wrap
  EXPECT_THAT(refused({data, huge}), HasSubstr("which is not what"));
}

class TokenizerFilesTest : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& bytes) { write_bytes(folder_.file(name), bytes); }
  std::int64_t size() { return tokenizer_vocab_size(folder_.path()); }
  TemporaryFolder folder_;
};

TEST_F(TokenizerFilesTest, KnowsFilesAndIdentity) {
  EXPECT_TRUE(tokenizer_files(folder_.file("missing")).empty());
  EXPECT_EQ(tokenizer_identity(folder_.path()), "");
  write("merges.txt", "a b");
  write("vocab.json", "{\"a\":0}");
  write("other.json", "{}");
  EXPECT_EQ(tokenizer_files(folder_.path()).size(), 2u);
  // sha256sum of the two in a row
  EXPECT_EQ(tokenizer_identity(folder_.path()), "809af83454b2dc20a0bc27316db8bfa37a5553586adc010c8612f0ef17d02654");
  write("tokenizer.json", "{}");
  EXPECT_EQ(tokenizer_identity(folder_.path()), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
}

TEST_F(TokenizerFilesTest, CountsTheVocabulary) {
  EXPECT_THROW(size(), Error);
  write("vocab.json", R"({"a": 0, "b": 6})");
  EXPECT_EQ(size(), 7);
  write("added_tokens.json", R"({"<pad>": 9})");
  EXPECT_EQ(size(), 10);
  write("tokenizer.json", R"({"model": {"vocab": {"a": 0, "b": 11}}, "added_tokens": [{"id": 12, "content": "<s>"}]})");
  EXPECT_EQ(size(), 13);
  write("tokenizer.json", R"({"model": {"vocab": [["a", -1.5], ["b", -2]]}})");
  EXPECT_EQ(size(), 10);  // added_tokens.json has more
  for (const char* damaged : {"", "[]", "{}", R"({"model": {"vocab": 3}})", R"({"model": {"vocab": {"a": -1}}})",
                              R"({"model": {"vocab": {"a": "x"}}})", R"({"model": {"vocab": {"a": 4294967296}}})"}) {
    write("tokenizer.json", damaged);
    EXPECT_THROW(size(), Error) << damaged;
  }
}

}  // namespace
}  // namespace vqlm
