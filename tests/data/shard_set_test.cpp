#include "data/shards/shard_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include "core/rng.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class ShardSets : public testing::Test {
 protected:
  /// Shards of random documents; shard 1 is empty.
  void SetUp() override {
    for (std::uint64_t shard = 0; shard < 4; ++shard) {
      const auto documents = random_documents(50, shard == 1 ? 0 : 100 + static_cast<int>(shard), shard);
      write_shard(folder_.file(fmt::format("train-{:05d}.h5", shard)), documents, {50, 0, "t", {}});
      documents_.insert(documents_.end(), documents.begin(), documents.end());
    }
    stream_ = concatenated(documents_);
  }

  TemporaryFolder folder_;
  std::string glob_ = folder_.file("train-*.h5");
  Documents documents_;
  std::vector<std::int32_t> stream_;
};

TEST_F(ShardSets, AreOneStreamInNameOrder) {
  for (const std::size_t cache_bytes : {std::size_t{0}, std::size_t{100'000}, std::size_t{64} << 20}) {
    ShardSet set(glob_);
    set.set_cache_bytes(cache_bytes);
    ASSERT_EQ(set.total_tokens(), stream_.size());
    EXPECT_EQ(set.total_documents(), documents_.size());
    EXPECT_EQ(set.shards().size(), 4u);
    EXPECT_EQ(set.vocab_size(), 50);
    std::vector<std::int32_t> tokens(stream_.size());
    set.read(0, tokens);
    EXPECT_EQ(tokens, stream_);
    const ShardSet copy = set;
    const Philox rng(9, "ranges");
    for (std::uint64_t i = 0; i < 200; ++i) {
      const std::uint64_t begin = rng.below(2 * i, stream_.size());
      tokens.resize(std::min<std::uint64_t>(rng.below(2 * i + 1, 3000), stream_.size() - begin));
      ShardSet(copy).read(begin, tokens);
      EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), stream_.begin() + static_cast<std::ptrdiff_t>(begin)));
      set.read(begin, tokens);
      EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), stream_.begin() + static_cast<std::ptrdiff_t>(begin)));
    }
  }
}

TEST_F(ShardSets, FindTheDocumentsOfARange) {
  ShardSet set(glob_);
  const Philox rng(10, "ranges");
  for (std::uint64_t i = 0; i < 50; ++i) {
    const std::uint64_t begin = rng.below(2 * i, stream_.size());
    const std::uint64_t end = begin + rng.below(2 * i + 1, stream_.size() - begin + 1);
    std::vector<ShardSet::Document> expected;
    std::uint64_t at = 0;
    for (const auto& document : documents_) {
      const std::uint64_t next = at + document.size();
      if (begin < end && next > begin && at < end) expected.push_back({at, next, text_bytes_of(document)});
      at = next;
    }
    const auto found = set.documents(begin, end);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t d = 0; d < found.size(); ++d) {
      EXPECT_EQ(found[d].begin, expected[d].begin);
      EXPECT_EQ(found[d].end, expected[d].end);
      EXPECT_EQ(found[d].text_bytes, expected[d].text_bytes);
    }
  }
}

TEST_F(ShardSets, AreToldApartByWhatTheyHold) {
  const ShardSet set(glob_);
  const std::string fingerprint = set.fingerprint();
  EXPECT_EQ(fingerprint.size(), 16u);
  const std::filesystem::path other(folder_.file("other"));
  std::filesystem::create_directory(other);
  for (const ShardSet::Shard& shard : set.shards()) {
    std::filesystem::copy(shard.path, other / std::filesystem::path(shard.path).filename());
  }
  const std::string copies = (other / "train-*.h5").string();
  EXPECT_EQ(ShardSet(copies).fingerprint(), fingerprint);
  std::filesystem::rename(other / "train-00003.h5", other / "x");
  std::filesystem::rename(other / "train-00002.h5", other / "train-00003.h5");
  std::filesystem::rename(other / "x", other / "train-00002.h5");
  EXPECT_NE(ShardSet(copies).fingerprint(), fingerprint);  // another order
  Documents documents = random_documents(50, 102, 2);
  const auto write = [&](const std::vector<SourceFile>& sources) {
    write_shard(glob_.substr(0, glob_.size() - 4) + "00002.h5", documents, {50, 0, "t", sources});
    return ShardSet(glob_).fingerprint();
  };
  EXPECT_EQ(write({}), fingerprint);
  EXPECT_NE(write({{"a.json", 3, "00"}}), fingerprint);
  EXPECT_EQ(write({{"a.json", 3, "00"}}), write({{"b.json", 3, "00"}}));
  documents.front().front() ^= 1;  // as many tokens as before
  EXPECT_NE(write({}), fingerprint);
}

TEST_F(ShardSets, MustComeFromOneTokenizer) {
  write_shard(folder_.file("train-00009.h5"), random_documents(50, 3, 1), {50, 0, "another", {}});
  EXPECT_THAT(message_of([&] { ShardSet{glob_}; }),
              AllOf(HasSubstr("train-00009.h5: tokenizer_sha256 is another"), HasSubstr("train-00000.h5 has t")));
  write_shard(folder_.file("train-00009.h5"), random_documents(50, 3, 1), {51, 0, "t", {}});
  EXPECT_THAT(message_of([&] { ShardSet{glob_}; }), HasSubstr("train-00009.h5: vocab_size is 51"));
}

TEST_F(ShardSets, ADamagedShardAndAMissingMatchAreNamed) {
  EXPECT_THAT(message_of([&] { ShardSet{folder_.file("heldout-*.h5")}; }),
              AllOf(HasSubstr("heldout-*.h5: no file matches"), HasSubstr("vqlm prepare")));
  const std::string damaged = folder_.file("train-00002.h5");
  write_bytes(damaged, read_bytes(damaged).substr(0, 1000));
  EXPECT_THAT(message_of([&] { ShardSet{glob_}; }), AllOf(HasSubstr("train-00002.h5"), HasSubstr("truncated")));
}

}  // namespace
}  // namespace vqlm
