#include "data/shards/token_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spdlog/fmt/fmt.h>
#include <sys/resource.h>

#include "core/rng.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class TokenShards : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string path_ = folder_.file("train-00000.h5");
};

TEST_F(TokenShards, KeepsTokensDocumentsAndMeta) {
  for (const std::int64_t vocab_size : {37, 65'536, 100'000}) {  // the middle one fills uint16, the last needs uint32
    const auto documents = random_documents(vocab_size, 200, 1);
    const ShardMeta meta{vocab_size, 3, "abc123", {{"c4 \"quoted\".json.gz", 5'000'000'000, "ff00"}}};
    write_shard(path_, documents, meta);
    ShardReader reader(path_);
    EXPECT_EQ(reader.meta().vocab_size, vocab_size);
    EXPECT_EQ(reader.meta().eos_id, 3);
    EXPECT_EQ(reader.meta().tokenizer_sha256, "abc123");
    EXPECT_EQ(reader.meta().sources, meta.sources);
    EXPECT_EQ(reader.document_count(), documents.size());
    const auto stream = concatenated(documents);
    ASSERT_EQ(reader.tokens(), stream.size());
    std::vector<std::int32_t> tokens(stream.size());
    reader.read_tokens(0, tokens);
    EXPECT_EQ(tokens, stream);
    const auto offsets = reader.documents();
    const auto bytes = reader.bytes();
    for (std::size_t i = 0; i < documents.size(); ++i) {
      EXPECT_EQ(offsets[i + 1] - offsets[i], documents[i].size());
      EXPECT_EQ(bytes[i], text_bytes_of(documents[i]));
    }
    reader.verify();
  }
}

TEST_F(TokenShards, ReadsAnyRange) {
  const auto documents = random_documents(50, 400, 2);  // about 4 chunks
  write_shard(path_, documents, {50, 0, "t", {}});
  const auto stream = concatenated(documents);
  ShardReader reader(path_);
  ASSERT_GT(stream.size(), 3 * reader.chunk_tokens());
  const Philox rng(3, "ranges");
  for (std::uint64_t i = 0; i < 50; ++i) {
    const std::uint64_t begin = rng.below(2 * i, stream.size());
    const std::uint64_t n = rng.below(2 * i + 1, stream.size() - begin + 1);
    std::vector<std::int32_t> tokens(n);
    reader.read_tokens(begin, tokens);
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), stream.begin() + static_cast<std::ptrdiff_t>(begin)));
  }
}

TEST_F(TokenShards, AnEmptyShardIsValid) {
  write_shard(path_, {}, {50, 0, "t", {}});
  ShardReader reader(path_);
  EXPECT_EQ(reader.tokens(), 0u);
  EXPECT_THAT(reader.documents(), ElementsAre(0));
  EXPECT_THAT(reader.bytes(), ElementsAre());
  reader.verify();
}

TEST_F(TokenShards, TheSameDocumentsGiveTheSameBytes) {
  const auto documents = random_documents(50, 100, 4);
  write_shard(path_, documents, {50, 0, "t", {}});
  write_shard(folder_.file("again.h5"), documents, {50, 0, "t", {}});
  EXPECT_EQ(read_bytes(path_), read_bytes(folder_.file("again.h5")));
}

TEST_F(TokenShards, AnUnfinishedWriterLeavesNothing) {
  {
    ShardWriter writer(path_, {50, 0, "t", {}});
    writer.add_document(std::vector<std::uint32_t>{1, 2, 0}, 5);
    EXPECT_TRUE(std::filesystem::exists(path_ + ".partial"));
    EXPECT_FALSE(std::filesystem::exists(path_));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(TokenShards, TheWriterRefusesWrongTokensAndVocabularies) {
  EXPECT_THAT(message_of([&] {
                ShardWriter(path_, {50, 50, "t", {}});
              }),
              HasSubstr("end-of-text id 50 is outside the vocabulary [0, 50)"));
  EXPECT_THAT(message_of([&] { ShardWriter(path_, {0, 0, "t", {}}); }), HasSubstr("a vocabulary of 0 tokens"));
  ShardWriter writer(path_, {50, 0, "t", {}});
  EXPECT_THAT(message_of([&] {
                writer.add_document(std::vector<std::uint32_t>{1, 50}, 5);
              }),
              HasSubstr("document 0 has token 50, outside the vocabulary [0, 50)"));
}

TEST_F(TokenShards, ADiskThatFillsUpIsAnError) {
  // A limit on the size of files makes write() fail as a full disk does. In a child process: HDF5 may not be able to
  // close the file afterwards, which must neither crash nor hang the exit.
  const auto fill_the_disk = [&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{200'000, 200'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message = message_of([&] {
      ShardWriter writer(path_, {60'000, 0, "t", {}});
      for (const auto& document : random_documents(60'000, 4'000, 5)) writer.add_document(document, 1);
      writer.finish();
    });
    std::fprintf(stderr, "%s\n", message.c_str());
    std::exit(message == "no error" ? 1 : 0);
  };
  EXPECT_EXIT(fill_the_disk(), testing::ExitedWithCode(0), "train-00000.h5.partial.*File too large");
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

// ---- damage ---------------------------------------------------------------------------------------------------------

/// What reading the whole shard says.
std::string damage_of(const std::string& path) {
  return message_of([&] { ShardReader(path).verify(); });
}

TEST_F(TokenShards, ATruncatedShardIsNamedWithTheWayOut) {
  write_shard(path_, random_documents(50, 400, 6), {50, 0, "t", {}});
  const std::string whole = read_bytes(path_);
  for (const std::size_t kept :
       {whole.size() - 1, whole.size() / 2, std::size_t{4096}, std::size_t{48}, std::size_t{0}}) {
    write_bytes(path_, whole.substr(0, kept));
    EXPECT_THAT(damage_of(path_),
                AllOf(HasSubstr("train-00000.h5"), HasSubstr("run `vqlm prepare` again"), Not(HasSubstr("\n"))))
        << kept << " of " << whole.size() << " bytes kept";
  }
  write_bytes(path_, std::string(whole.size(), 'x'));
  EXPECT_THAT(damage_of(path_), AllOf(HasSubstr("signature not found"), HasSubstr("run `vqlm prepare` again")));
}

TEST_F(TokenShards, AFlippedByteAnywhereIsFoundOrHarmless) {
  const auto documents = random_documents(50, 200, 7);
  write_shard(path_, documents, {50, 0, "tokenizer", {{"a.json", 10, "00"}}});
  const std::string whole = read_bytes(path_);
  const auto stream = concatenated(documents);
  const Philox rng(8, "flips");
  int found = 0;
  constexpr int flips = 300;
  for (int i = 0; i < flips; ++i) {
    std::string damaged = whole;
    const std::size_t at = rng.below(static_cast<std::uint64_t>(i), whole.size());
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (i % 8)));
    write_bytes(path_, damaged);
    const std::string message = damage_of(path_);
    if (message != "no error") {
      ++found;
      EXPECT_THAT(message, AllOf(HasSubstr("train-00000.h5"), HasSubstr("run `vqlm prepare` again"))) << "byte " << at;
      continue;
    }
    // A byte that HDF5 does not use (free space): what is read must be what was written.
    ShardReader reader(path_);
    std::vector<std::int32_t> tokens(reader.tokens());
    reader.read_tokens(0, tokens);
    EXPECT_EQ(tokens, stream) << "byte " << at;
    EXPECT_EQ(reader.meta().tokenizer_sha256, "tokenizer");
  }
  EXPECT_GT(found, flips / 2);
}

TEST_F(TokenShards, OtherFormatsVersionsAndSizesAreRefused) {
  const auto write_with = [&](auto change) {
    h5::File file = h5::File::create(path_);
    file.create_dataset("tokens", h5::Type::u16, {4}).write_all<std::uint16_t>(std::vector<std::uint16_t>{1, 2, 3, 0});
    file.create_dataset("documents", h5::Type::u64, {3}).write_all<std::uint64_t>(std::vector<std::uint64_t>{0, 2, 4});
    file.create_dataset("bytes", h5::Type::u64, {2}).write_all<std::uint64_t>(std::vector<std::uint64_t>{5, 6});
    file.set_attribute("format", shard_format);
    for (const auto& [name, value] : std::vector<std::pair<const char*, std::int64_t>>{{"version", 1},
                                                                                       {"vocab_size", 10},
                                                                                       {"eos_id", 0},
                                                                                       {"document_count", 2},
                                                                                       {"token_count", 4},
                                                                                       {"text_bytes", 11}}) {
      file.set_attribute(name, value);
    }
    file.set_attribute("tokenizer_sha256", "t");
    file.set_attribute("sources", "[]");
    change(file);
  };
  write_with([](h5::File&) {});
  EXPECT_EQ(damage_of(path_), "no error");
  const auto refused = [&](auto change) {
    write_with(change);
    const std::string message = damage_of(path_);
    EXPECT_THAT(message, HasSubstr("run `vqlm prepare` again"));
    return message;
  };
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("format", "other"); }), HasSubstr("is not a token shard"));
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("version", std::int64_t{2}); }),
              HasSubstr("has shard version 2, this program reads version 1"));
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("token_count", std::int64_t{5}); }),
              HasSubstr("tokens: does not hold the 5 elements"));
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("document_count", std::int64_t{-2}); }),
              HasSubstr("document_count is -2"));
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("vocab_size", std::int64_t{3}); }),
              HasSubstr("token 2 is 3, outside the vocabulary [0, 3)"));
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("eos_id", std::int64_t{10}); }),
              HasSubstr("end-of-text id 10 does not fit"));
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("sources", "[{}]"); }), HasSubstr("attribute sources"));
  EXPECT_THAT(refused([](h5::File& f) { f.set_attribute("text_bytes", std::int64_t{12}); }),
              HasSubstr("/bytes sums to 11"));
  EXPECT_THAT(refused([](h5::File& f) {
                f.dataset("documents").write_all<std::uint64_t>(std::vector<std::uint64_t>{0, 5, 4});
              }),
              HasSubstr("/documents does not rise from 0 to 4"));
}

TEST_F(TokenShards, SizesThatTheFileDoesNotHoldAreRefusedAtOnce) {
  // 2 TiB of tokens in a file of some KB: reading them all would take hours.
  constexpr std::uint64_t huge = std::uint64_t{1} << 40;
  h5::File file = h5::File::create(path_);
  file.create_dataset("tokens", h5::Type::u16, {huge}, {.chunk = {4096}, .deflate = 4});
  file.create_dataset("documents", h5::Type::u64, {huge + 1}, {.chunk = {4096}, .deflate = 4});
  file.create_dataset("bytes", h5::Type::u64, {huge}, {.chunk = {4096}, .deflate = 4});
  file.set_attribute("format", shard_format);
  file.set_attribute("version", shard_version);
  file.set_attribute("vocab_size", std::int64_t{10});
  file.set_attribute("eos_id", std::int64_t{0});
  for (const char* name : {"document_count", "token_count", "text_bytes"}) {
    file.set_attribute(name, static_cast<std::int64_t>(huge));
  }
  file.set_attribute("tokenizer_sha256", "t");
  file.set_attribute("sources", "[]");
  file.close();
  EXPECT_THAT(damage_of(path_), HasSubstr("the file is too small for the elements that its shape tells"));
}

}  // namespace
}  // namespace vqlm
