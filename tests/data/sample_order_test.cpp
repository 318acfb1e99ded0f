#include "data/shards/sample_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "data/shards/batch_loader.h"
#include "data/shards/permutation.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::int64_t seq_len = 8;

TEST(PermutationInverse, GivesThePlaceBack) {
  for (const std::uint64_t n : {1ULL, 2ULL, 3ULL, 10ULL, 97ULL, 1000ULL, 4097ULL}) {
    const Permutation permutation(n, 9, 3);
    for (std::uint64_t i = 0; i < n; ++i) ASSERT_EQ(permutation.inverse(permutation(i)), i) << n;
  }
  const Permutation large(3'000'000'019ULL, 1, 0);
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(large.inverse(large(i * 2'999'999ULL)), i * 2'999'999ULL);
}

/// Three sources of 40, 25 and 10 whole samples whose tokens tell their place in the stream.
class Mixed : public testing::Test {
 protected:
  void SetUp() override {
    std::uint32_t position = 0;
    for (const auto& [name, samples] : {std::pair{"web", 40}, {"code", 25}, {"math", 10}}) {
      Documents documents;
      for (int d = 0; d < samples; ++d) {
        std::vector<std::uint32_t> document(static_cast<std::size_t>(seq_len));
        for (auto& token : document) token = position++;
        documents.push_back(document);
      }
      documents.back().push_back(position++);
      write_shard(folder_.file(std::string(name) + "-0.h5"), documents, {100'000, 99'999, "t", {}});
      sources_.push_back({.name = name, .glob = folder_.file(std::string(name) + "-*.h5")});
    }
  }

  ShardSet shards() const { return ShardSet(sources_); }
  SampleOrder order() const { return {shards(), {"web", "code", "math"}, stages_, seq_len, 5}; }

  TemporaryFolder folder_;
  std::vector<ShardSet::Source> sources_;
  std::vector<MixtureStage> stages_ = {{.first_sample = 0, .shares = {7, 2, 0}},
                                       {.first_sample = 100, .shares = {1, 1, 2}},
                                       {.first_sample = 160, .shares = {0, 0, 1}}};
};

TEST_F(Mixed, PartsAreSetsOfTheirOwn) {
  const ShardSet all = shards();
  ASSERT_EQ(all.parts().size(), 3U);
  EXPECT_EQ(all.total_tokens(), 75U * 8 + 3);
  EXPECT_EQ(all.parts()[1].first_token, 321U);
  const ShardSet code = all.part(1);
  EXPECT_EQ(code.total_tokens(), 201U);
  EXPECT_EQ(code.fingerprint(), ShardSet(sources_[1].glob).fingerprint());
  std::vector<std::int32_t> first(1);
  ShardSet(code).read(0, first);
  EXPECT_EQ(first[0], 321);
}

TEST_F(Mixed, EverySourceGoesThroughItsOwnEpochs) {
  SampleOrder walk = order();
  std::map<std::size_t, std::vector<std::uint64_t>> numbers;
  for (std::uint64_t n = 0; n < 300; ++n) {
    const SampleOrder::Sample sample = walk.at(n);
    EXPECT_EQ(sample.epoch, numbers[sample.source].size() / walk.samples_per_epoch(sample.source));
    EXPECT_EQ(sample.first_token, walk.first_token(sample.source) + sample.number * seq_len);
    numbers[sample.source].push_back(sample.number);
  }
  // 100 samples of 7 : 2 : 0, 60 of 1 : 1 : 2, 140 of math.
  EXPECT_EQ(numbers[0].size(), 78U + 15);
  EXPECT_EQ(numbers[1].size(), 22U + 15);
  EXPECT_EQ(numbers[2].size(), 30U + 140);
  for (auto& [source, read] : numbers) {
    const std::uint64_t epoch = walk.samples_per_epoch(source);
    for (std::size_t begin = 0; begin + epoch <= read.size(); begin += epoch) {
      const auto first = read.begin() + static_cast<std::ptrdiff_t>(begin);
      EXPECT_EQ(std::set(first, first + static_cast<std::ptrdiff_t>(epoch)).size(), epoch);
    }
  }
  EXPECT_EQ(order().drawn(300), (std::vector<std::uint64_t>{93, 37, 170}));
}

TEST_F(Mixed, AnyPlaceIsKnownWithoutTheOnesBefore) {
  SampleOrder walk = order();
  SampleOrder jump = order();
  for (std::uint64_t n = 0; n < 300; ++n) {
    const SampleOrder::Sample expected = walk.at(n);
    jump.at((n * 7919) % 300);
    const SampleOrder::Sample sample = jump.at(n);
    EXPECT_EQ(sample.source, expected.source);
    EXPECT_EQ(sample.first_token, expected.first_token);
  }
}

TEST_F(Mixed, PositionsAreTheInverse) {
  SampleOrder walk = order();
  std::map<std::pair<std::size_t, std::uint64_t>, std::vector<std::uint64_t>> read;
  for (std::uint64_t n = 0; n < 300; ++n) {
    const SampleOrder::Sample sample = walk.at(n);
    read[{sample.source, sample.number}].push_back(n);
  }
  for (std::size_t source = 0; source < 3; ++source) {
    for (std::uint64_t number = 0; number < walk.samples_per_epoch(source); ++number)
      EXPECT_EQ(walk.positions(source, number, 300), (read[{source, number}])) << source << " " << number;
  }
}

TEST_F(Mixed, ASourceKeepsItsOrderWhateverIsBesideIt) {
  const SampleOrder alone(ShardSet(std::vector{sources_[0]}), {"web"}, {{.first_sample = 0, .shares = {1}}}, seq_len,
                          5);
  SampleOrder own = alone;
  SampleOrder mixed = order();
  for (std::uint64_t n = 0, web = 0; n < 160; ++n) {
    const SampleOrder::Sample sample = mixed.at(n);
    if (sample.source == 0) {
      EXPECT_EQ(sample.number, own.at(web++).number);
    }
  }
}

TEST_F(Mixed, TheSameOnEveryGridAndAfterEveryStop) {
  const auto read = [&](int data_size, std::int64_t micro_batch, std::uint64_t stop) {
    std::vector<std::int32_t> first_tokens;
    for (std::uint64_t begin : {std::uint64_t{0}, stop}) {
      const std::uint64_t end = begin == 0 ? stop : 240;
      std::vector<std::vector<std::int32_t>> steps((end - begin) / 12);
      for (int rank = 0; rank < data_size; ++rank) {
        BatchLoader loader(shards(), order(),
                           {.seq_len = seq_len,
                            .micro_batch = micro_batch,
                            .global_batch = 12,
                            .data_rank = rank,
                            .data_size = data_size,
                            .first_sample = begin});
        for (auto& step : steps) {
          for (std::int64_t m = 0; m < loader.micro_batches_per_step(); ++m) {
            const Batch batch = loader.next();
            EXPECT_EQ(batch.sources.size(), static_cast<std::size_t>(micro_batch));
            for (std::size_t at = 0; at < batch.tokens.size(); at += seq_len) step.push_back(batch.tokens[at]);
          }
        }
      }
      for (const auto& step : steps) first_tokens.insert(first_tokens.end(), step.begin(), step.end());
    }
    return first_tokens;
  };
  const auto expected = read(1, 12, 120);
  ASSERT_EQ(expected.size(), 240U);
  SampleOrder walk = order();
  for (std::uint64_t n = 0; n < 240; ++n) EXPECT_EQ(expected[n], static_cast<std::int32_t>(walk.at(n).first_token));
  EXPECT_EQ(read(2, 3, 96), expected);
  EXPECT_EQ(read(3, 2, 108), expected);
  EXPECT_EQ(read(4, 1, 60), expected);
  EXPECT_EQ(read(6, 2, 228), expected);
}

TEST_F(Mixed, SourcesThatDoNotGoTogetherAreRefused) {
  sources_[1].glob = sources_[0].glob;
  EXPECT_THAT(message_of([&] { shards(); }), AllOf(HasSubstr("web-0.h5"), HasSubstr("source web and in source code")));
  write_shard(folder_.file("other-0.h5"), {{1, 2, 3}}, {100'000, 99'999, "another", {}});
  sources_[1].glob = folder_.file("other-*.h5");
  EXPECT_THAT(message_of([&] { shards(); }),
              AllOf(HasSubstr("other-0.h5"), HasSubstr("web-0.h5"), HasSubstr("tokenizer")));
  write_shard(folder_.file("short-0.h5"), {{1, 2, 3}}, {100'000, 99'999, "t", {}});
  sources_[1].glob = folder_.file("short-*.h5");
  EXPECT_THAT(message_of([&] { order(); }), AllOf(HasSubstr("short-*.h5"), HasSubstr("fewer than one sample")));
}

}  // namespace
}  // namespace vqlm
