#include "data/shards/batch_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

constexpr std::int64_t seq_len = 7;

/// Two shards whose token at stream position p is p, so that a token tells its place.
class Batches : public testing::Test {
 protected:
  void SetUp() override {
    std::uint32_t position = 0;
    for (const int documents : {50, 30}) {
      Documents texts;
      for (int d = 0; d < documents; ++d) {
        std::vector<std::uint32_t> document(static_cast<std::size_t>(11 + d % 5));
        for (std::uint32_t& token : document) token = position++;
        texts.push_back(document);
      }
      write_shard(folder_.file("train-" + std::to_string(documents == 50 ? 0 : 1) + ".h5"), texts,
                  {100'000, 99'999, "t", {}});
    }
    tokens_ = position;
    samples_ = (tokens_ - 1) / seq_len;
  }

  ShardSet shards() const { return ShardSet(folder_.file("train-*.h5")); }

  TemporaryFolder folder_;
  std::uint64_t tokens_ = 0;
  std::uint64_t samples_ = 0;
};

/// Sample numbers of the rows, after checking that each row is a whole sample with its targets.
std::vector<std::uint64_t> sample_numbers(const Batch& batch) {
  std::vector<std::uint64_t> numbers;
  EXPECT_EQ(batch.tokens.size(), batch.targets.size());
  for (std::size_t at = 0; at < batch.tokens.size(); at += seq_len) {
    EXPECT_EQ(batch.tokens[at] % seq_len, 0);
    for (std::size_t i = 0; i < seq_len; ++i) {
      EXPECT_EQ(batch.tokens[at + i], batch.tokens[at] + static_cast<std::int32_t>(i));
      EXPECT_EQ(batch.targets[at + i], batch.tokens[at + i] + 1);
    }
    numbers.push_back(static_cast<std::uint64_t>(batch.tokens[at] / seq_len));
  }
  return numbers;
}

/// Sample numbers of `steps` optimizer steps in the order of the global sequence: rank by rank within each step.
std::vector<std::uint64_t> global_sequence(const ShardSet& shards, LoaderOptions options, int steps) {
  std::vector<std::vector<std::uint64_t>> of_step(static_cast<std::size_t>(steps));
  for (options.data_rank = 0; options.data_rank < options.data_size; ++options.data_rank) {
    BatchLoader loader(shards, options);
    for (auto& numbers : of_step) {
      for (std::int64_t m = 0; m < loader.micro_batches_per_step(); ++m) {
        const auto batch = sample_numbers(loader.next());
        numbers.insert(numbers.end(), batch.begin(), batch.end());
      }
    }
  }
  std::vector<std::uint64_t> all;
  for (const auto& numbers : of_step) all.insert(all.end(), numbers.begin(), numbers.end());
  return all;
}

TEST_F(Batches, EveryEpochVisitsEverySampleOnce) {
  BatchLoader loader(shards(), {.seq_len = seq_len, .micro_batch = 1, .global_batch = 1, .seed = 3});
  EXPECT_EQ(loader.samples_per_epoch(), samples_);
  std::vector<std::vector<std::uint64_t>> epochs(3);
  for (auto& epoch : epochs) {
    for (std::uint64_t i = 0; i < samples_; ++i) epoch.push_back(sample_numbers(loader.next())[0]);
    EXPECT_EQ(std::set<std::uint64_t>(epoch.begin(), epoch.end()).size(), samples_);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
  EXPECT_EQ(loader.samples_consumed(), 3 * samples_);
}

TEST_F(Batches, AnyGridAndMicroBatchSeesTheSameSequence) {
  const LoaderOptions one{.seq_len = seq_len, .micro_batch = 24, .global_batch = 24, .seed = 3};
  const int steps = 13;  // more than two epochs
  const auto expected = global_sequence(shards(), one, steps);
  ASSERT_GT(expected.size(), 2 * samples_);
  for (const int data_size : {1, 2, 3, 4}) {
    for (const std::int64_t micro_batch : {1, 2}) {
      LoaderOptions options = one;
      options.data_size = data_size;
      options.micro_batch = micro_batch;
      options.read_ahead = data_size;
      EXPECT_EQ(global_sequence(shards(), options, steps), expected) << data_size << " ranks, " << micro_batch;
    }
  }
}

TEST_F(Batches, ResumesFromSamplesConsumed) {
  const LoaderOptions options{.seq_len = seq_len, .micro_batch = 2, .global_batch = 8, .seed = 4};
  const auto expected = global_sequence(shards(), options, 50);
  BatchLoader loader(shards(), options);
  for (int step = 0; step < 17; ++step) {
    for (int m = 0; m < 4; ++m) loader.next();
  }
  loader.next();  // a step that was begun is not consumed
  ASSERT_EQ(loader.samples_consumed(), 17u * 8u);
  // Another grid and another global batch continue where the first stopped.
  LoaderOptions resumed = options;
  resumed.first_sample = loader.samples_consumed();
  resumed.data_size = 3;
  resumed.global_batch = 6;
  EXPECT_EQ(BatchLoader(shards(), resumed).samples_consumed(), 17u * 8u);
  const auto rest = global_sequence(shards(), resumed, 44);
  EXPECT_EQ(rest, std::vector<std::uint64_t>(expected.begin() + 17 * 8, expected.end()));
}

TEST_F(Batches, SeedsGiveDifferentOrders) {
  LoaderOptions options{.seq_len = seq_len, .micro_batch = 8, .global_batch = 8, .seed = 1};
  const auto first = global_sequence(shards(), options, 10);
  options.seed = 2;
  EXPECT_NE(global_sequence(shards(), options, 10), first);
}

TEST_F(Batches, WrongSizesAreRefusedWithTheNumbers) {
  const auto message = [&](LoaderOptions options) { return message_of([&] { BatchLoader(shards(), options); }); };
  EXPECT_THAT(message({.seq_len = seq_len, .micro_batch = 4, .global_batch = 30, .data_size = 3}),
              AllOf(HasSubstr("global_batch = 30"), HasSubstr("micro_batch 4 times 3 data ranks = 12"),
                    HasSubstr("nearest multiple is 36")));
  EXPECT_THAT(message({.seq_len = 0, .micro_batch = 1, .global_batch = 1}), HasSubstr("data.seq_len = 0"));
  EXPECT_THAT(message({.seq_len = seq_len, .micro_batch = 0, .global_batch = 1}), HasSubstr("train.micro_batch = 0"));
  EXPECT_THROW(BatchLoader(shards(), {.seq_len = seq_len, .micro_batch = 2, .global_batch = 3}), UsageError);
  EXPECT_THAT(message({.seq_len = 100'000, .micro_batch = 1, .global_batch = 1}),
              AllOf(HasSubstr("train-*.h5"), HasSubstr("fewer than one sample"), HasSubstr("100001")));
}

TEST_F(Batches, AnErrorOfReadingReachesTheCaller) {
  ShardSet set = shards();
  const std::string path = folder_.file("train-1.h5");
  const std::string whole = read_bytes(path);
  std::filesystem::remove(path);  // before the set opened it again: copies open their own files
  LoaderOptions options{.seq_len = seq_len, .micro_batch = 1, .global_batch = 1};
  BatchLoader loader(ShardSet(set), options);
  const auto read_an_epoch = [&] {
    for (std::uint64_t i = 0; i < samples_; ++i) loader.next();
  };
  EXPECT_THAT(message_of(read_an_epoch), HasSubstr("train-1.h5"));
  EXPECT_THAT(message_of([&] { loader.next(); }), HasSubstr("train-1.h5"));
}

TEST_F(Batches, TheDestructorDoesNotWaitForTheEnd) {
  for (int i = 0; i < 20; ++i) {
    BatchLoader loader(shards(), {.seq_len = seq_len, .micro_batch = 1, .global_batch = 1, .read_ahead = 1});
    if (i % 2 == 0) loader.next();
  }
}

TEST_F(Batches, EvaluationPredictsEveryTokenButTheFirstOnce) {
  for (const int size : {1, 2, 3}) {
    for (const std::int64_t rows : {1, 4, 1000}) {
      std::map<std::int32_t, int> times;
      std::int64_t batches = -1;
      for (int rank = 0; rank < size; ++rank) {
        EvalSamples samples(shards(), {.seq_len = seq_len, .rows = rows, .rank = rank, .size = size});
        EXPECT_EQ(samples.predicted_tokens(), tokens_ - 1);
        if (rank > 0) {
          EXPECT_EQ(samples.batches(), batches);
        }
        batches = samples.batches();
        for (std::int64_t b = 0; b < batches; ++b) {
          const Batch batch = samples.batch(b);
          ASSERT_EQ(batch.targets.size(), static_cast<std::size_t>(rows * seq_len));
          for (std::size_t i = 0; i < batch.targets.size(); ++i) {
            if (batch.targets[i] < 0) {
              EXPECT_EQ(batch.tokens[i], 99'999);
              continue;
            }
            EXPECT_EQ(batch.targets[i], batch.tokens[i] + 1);
            ++times[batch.targets[i]];
          }
        }
      }
      EXPECT_EQ(times.size(), tokens_ - 1);
      EXPECT_EQ(times.begin()->first, 1);
      for (const auto& [token, count] : times) EXPECT_EQ(count, 1) << token;
    }
  }
}

TEST_F(Batches, EvaluationCountsTheBytesOfWhatItPredicts) {
  ShardSet set = shards();
  EvalSamples all(set, {.seq_len = seq_len, .rows = 4});
  EXPECT_DOUBLE_EQ(all.predicted_bytes().value(), static_cast<double>(set.total_text_bytes()));
  // Documents 0 and 1 have 11 and 12 tokens, 34 and 37 bytes: two samples predict tokens 1 to 14, 4 of document 1.
  EvalSamples some(set, {.seq_len = seq_len, .rows = 4, .max_samples = 2});
  EXPECT_EQ(some.predicted_tokens(), 14u);
  EXPECT_EQ(some.batches(), 1);
  EXPECT_DOUBLE_EQ(some.predicted_bytes().value(), 34 + 37 * 4.0 / 12);
}

TEST_F(Batches, AStreamOfOneTokenCannotBeEvaluated) {
  write_shard(folder_.file("one.h5"), {{5}}, {10, 0, "t", {}});
  EXPECT_THAT(message_of([&] { EvalSamples(ShardSet(folder_.file("one.h5")), {.seq_len = 4, .rows = 1}); }),
              HasSubstr("evaluation needs at least 2"));
}

}  // namespace
}  // namespace vqlm
