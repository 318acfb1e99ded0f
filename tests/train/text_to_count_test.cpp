// What is counted for token biases and code maps, against a count by hand of the samples that a run reads.
#include "train/codes/text_to_count.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdlib>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "train/codes/map_counts.h"
#include "train/codes/map_seen.h"

namespace vqlm {
namespace {

constexpr std::int64_t vocabulary = 30;
const std::vector<int> offsets = {1, -1, -2, 3};

/// What is counted, by hand: a flag for each token of the stream, and for each step from one token to the next that lies in a
/// sample.
struct ByHand {
  std::vector<bool> counted, joined;
  std::uint64_t samples = 0;

  ByHand(const ShardSet& shards, SampleOrder order, std::uint64_t n)
      : counted(shards.total_tokens(), false), joined(shards.total_tokens(), false) {
    std::vector<bool> begun(shards.total_tokens(), false);
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t first = order.at(i).first_token;
      samples += begun[first] ? 0 : 1;
      begun[first] = true;
      for (std::uint64_t t = first; t < first + order.seq_len(); ++t) counted[t + 1] = joined[t] = true;
    }
  }

  std::vector<std::int64_t> counts(const std::vector<std::int32_t>& stream) const {
    std::vector<std::int64_t> found(vocabulary, 0);
    for (std::size_t t = 0; t < stream.size(); ++t) found[static_cast<std::size_t>(stream[t])] += counted[t] ? 1 : 0;
    return found;
  }
  /// (V, offsets, V), every token a context of its own number.
  std::vector<double> pairs(const std::vector<std::int32_t>& stream) const {
    std::vector<double> found(vocabulary * offsets.size() * vocabulary, 0);
    for (std::size_t p = 0; p < offsets.size(); ++p) {
      const auto distance = static_cast<std::size_t>(std::abs(offsets[p]));
      for (std::size_t t = 0; t + distance < stream.size(); ++t) {
        const auto from = joined.begin() + static_cast<std::ptrdiff_t>(t);
        if (!std::all_of(from, from + static_cast<std::ptrdiff_t>(distance), [](bool joins) { return joins; }))
          continue;
        const auto token = static_cast<std::size_t>(stream[offsets[p] > 0 ? t : t + distance]);
        const auto context = static_cast<std::size_t>(stream[offsets[p] > 0 ? t + distance : t]);
        found[(token * offsets.size() + p) * vocabulary + context] += 1;
      }
    }
    return found;
  }
};

/// The same as ByHand::pairs, of what a rank of `size` counts.
std::vector<double> counted_pairs(const TextToCount& text, int rank, int size) {
  const std::vector<std::int64_t> in_order(vocabulary, 1);  // contexts by their numbers
  const SparseRows rows =
      count_neighbours(text, in_order, vocabulary, offsets, {.rank = rank, .size = size, .sum = [](auto&) {}});
  std::vector<double> found(vocabulary * offsets.size() * vocabulary, 0);
  for (std::size_t v = 0; v < vocabulary; ++v) {
    for (auto i = static_cast<std::size_t>(rows.row_begin[v]); i < static_cast<std::size_t>(rows.row_begin[v + 1]); ++i)
      found[v * offsets.size() * vocabulary + static_cast<std::size_t>(rows.column[i])] += rows.value[i];
  }
  return found;
}

template <class T>
void add(std::vector<T>& sums, const std::vector<T>& values) {
  sums.resize(values.size(), 0);
  for (std::size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

class TextToCountTest : public ::testing::Test {
 protected:
  /// `documents` of random text: two shards.
  std::string write(const std::string& name, int documents, std::uint64_t seed) {
    for (std::uint64_t shard = 0; shard < 2; ++shard) {
      write_shard(folder_.file(name + "-" + std::to_string(shard) + ".h5"),
                  random_documents(vocabulary, documents, seed + shard), {vocabulary, 0, "t", {}});
    }
    return folder_.file(name + "-*.h5");
  }

  static std::vector<std::int32_t> stream_of(ShardSet shards) {
    std::vector<std::int32_t> stream(shards.total_tokens());
    shards.read(0, stream);
    return stream;
  }

  /// On one rank and, part by part, on three.
  static void expect(const TextToCount& text, const ByHand& by_hand) {
    const std::vector<std::int32_t> stream = stream_of(text.shards());
    EXPECT_EQ(text.samples(), by_hand.samples);
    EXPECT_EQ(static_cast<std::int64_t>(text.tokens()),
              std::count(by_hand.counted.begin(), by_hand.counted.end(), true));
    for (const int size : {1, 3}) {
      std::vector<std::int64_t> counts;
      std::vector<double> pairs;
      for (int rank = 0; rank < size; ++rank) {
        add(counts, count_tokens(text, {.rank = rank, .size = size, .sum = [](auto&) {}}));
        add(pairs, counted_pairs(text, rank, size));
      }
      EXPECT_EQ(counts, by_hand.counts(stream)) << size;
      EXPECT_EQ(pairs, by_hand.pairs(stream)) << size;
    }
  }

  static constexpr std::uint64_t no_limit = 1'000'000'000;
  TemporaryFolder folder_;
};

TEST_F(TextToCountTest, IsTheSamplesOfARunEachOnce) {
  const ShardSet shards(write("train", 20, 3));
  for (const std::uint64_t seq_len : {1, 7, 64}) {
    const SampleOrder order(shards, seq_len, 11);
    const std::uint64_t epoch = (shards.total_tokens() - 1) / seq_len;
    ASSERT_GT(epoch, 90U);
    for (const std::uint64_t n :
         {std::uint64_t{1}, std::uint64_t{25}, epoch / 2, epoch, epoch + epoch / 3, 3 * epoch}) {
      SCOPED_TRACE(fmt::format("T = {}, {} samples of {}", seq_len, n, epoch));
      expect(TextToCount(shards, order, n, no_limit), ByHand(shards, order, n));
    }
  }
}

TEST_F(TextToCountTest, LongTextIsCutIntoBlocks) {
  const ShardSet shards(write("train", 500, 4));  // 200,000 tokens: samples of a whole epoch are one text
  ASSERT_GT(shards.total_tokens(), 150'000U);
  for (const std::uint64_t seq_len : {200, 70'000}) {
    const SampleOrder order(shards, seq_len, 12);
    const std::uint64_t n = shards.total_tokens() / seq_len;
    expect(TextToCount(shards, order, n, no_limit), ByHand(shards, order, n));
  }
}

class MixedTextToCount : public TextToCountTest {
 protected:
  /// 40 %, 20 % and from sample 60 on a third source, of which there is little.
  MixedTextToCount()
      : shards_({{"web", write("web", 10, 5)}, {"code", write("code", 3, 9)}, {"math", write("math", 1, 15)}}),
        order_(shards_, {"web", "code", "math"},
               {{.first_sample = 0, .shares = {2, 1, 0}}, {.first_sample = 60, .shares = {1, 1, 3}}}, 16, 2) {}

  ShardSet shards_;
  SampleOrder order_;
};

TEST_F(MixedTextToCount, FollowsTheSourcesTurnsAndStages) {
  for (const std::uint64_t n : {10, 60, 100, 700}) {
    SCOPED_TRACE(n);
    const ByHand by_hand(shards_, order_, n);
    const TextToCount text(shards_, order_, n, no_limit);
    expect(text, by_hand);
    EXPECT_EQ(text.samples_of_run(), by_hand.samples);
  }
  EXPECT_LT(ByHand(shards_, order_, 700).samples, 690U);  // some were read again
}

TEST_F(MixedTextToCount, BeyondTheLimitTheFirstSamplesCount) {
  constexpr std::uint64_t n = 700, most = 130;
  std::uint64_t first = 0;  // the last place at which so many have been read
  while (ByHand(shards_, order_, first + 1).samples <= most) ++first;
  ASSERT_GT(first, most);
  ASSERT_LT(first, n);
  const TextToCount text(shards_, order_, n, most * 16 + 5);
  expect(text, ByHand(shards_, order_, first));
  EXPECT_EQ(text.samples(), most);
  EXPECT_EQ(text.samples_of_run(), ByHand(shards_, order_, n).samples);
  EXPECT_EQ(TextToCount(shards_, order_, n, 3).samples(), 1U);
}

TEST_F(TextToCountTest, AWholeStreamSaysHowMuchOfItIsCounted) {
  const ShardSet shards(write("train", 500, 4));
  EXPECT_EQ(TextToCount(shards, no_limit).tokens(), shards.total_tokens());
  EXPECT_EQ(TextToCount(shards, no_limit).samples(), 0U);
  const TextToCount part(shards, 100'000);
  EXPECT_EQ(part.tokens(), 2U * 65'536);
  std::int64_t counted = 0;
  for (const std::int64_t count : count_tokens(part)) counted += count;
  EXPECT_EQ(counted, 2 * 65'536);
}

TEST(MapSeen, IsHeldAgainstTheTextThatIsTrainedOn) {
  EXPECT_EQ(times_trained_text(136'255, 4'096), ", 33.3 times the tokens that are trained on");
  EXPECT_EQ(times_trained_text(7'202'088, 1'966'080), ", 3.66 times the tokens that are trained on");
  EXPECT_EQ(times_trained_text(2'000'000, 4'096), ", 488 times the tokens that are trained on");
  for (const auto& [counted, trained] : {std::pair{4'096, 4'096}, {4'000, 4'096}, {0, 4'096}, {4'096, 0}})
    EXPECT_EQ(times_trained_text(counted, trained), "");
}

TEST(MapSeen, EarlierVersionsToldItInTheProvenance) {
  EXPECT_EQ(counted_in_provenance("frequency: 136255 counted tokens, seed 1"), 136'255);
  EXPECT_EQ(counted_in_provenance("corpus: neighbours of 7202088 tokens of shards/train-*.h5, 2000 contexts"),
            7'202'088);
  EXPECT_EQ(counted_in_provenance("re-fit: hidden states of 4000000 tokens of runs/a (step 9)"), 4'000'000);
  for (const char* none : {"", "random: seed 1", "frequency: many counted tokens", "corpus: neighbours of -3 tokens",
                           "frequency: 12", "frequency: 99999999999999999999 counted tokens, seed 1"})
    EXPECT_EQ(counted_in_provenance(none), 0) << none;
}

}  // namespace
}  // namespace vqlm
