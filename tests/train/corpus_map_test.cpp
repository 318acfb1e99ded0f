#include "train/codes/corpus_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <array>
#include <cmath>
#include <map>

#include "core/cpu/cpu_backend.h"
#include "core/rng.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "train/codes/token_vectors.h"

namespace vqlm {
namespace {

using testing::HasSubstr;

/// Text with planted word classes: token v has class v % classes; each class is followed by one of three classes, and
/// within a class frequent tokens are drawn more often (Zipf).
Documents planted_documents(std::uint32_t vocab_size, std::uint32_t classes, int tokens, std::uint64_t seed) {
  const Philox rng(seed, "planted");
  std::uint64_t drawn = 0;
  Documents documents(1);
  std::uint32_t word_class = 0;
  for (int i = 0; i < tokens; ++i) {
    constexpr std::array<std::uint32_t, 3> steps{1, 4, 12};  // two of 20 classes share at most one successor
    word_class = (word_class * 7 + steps[rng.below(drawn++, 3)]) % classes;
    const std::uint32_t members = (vocab_size - word_class + classes - 1) / classes;
    const double u = static_cast<double>(rng.uniform(drawn++));
    const auto member = static_cast<std::uint32_t>(std::pow(members + 1.0, u)) - 1;
    documents.back().push_back(word_class + classes * std::min(member, members - 1));
    if (documents.back().size() == 500) documents.emplace_back();
  }
  if (documents.back().empty()) documents.pop_back();
  return documents;
}

/// Of the pairs of tokens in one cluster, the part that has one class.
double pair_precision(const CodeMap& map, std::int32_t classes) {
  double same_cluster = 0;
  double same_class = 0;
  for (std::size_t a = 0; a < map.cluster_of_token.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      if (map.cluster_of_token[a] != map.cluster_of_token[b]) continue;
      same_cluster += 1;
      same_class += a % static_cast<std::size_t>(classes) == b % static_cast<std::size_t>(classes) ? 1 : 0;
    }
  }
  return same_class / same_cluster;
}

class CorpusMap : public testing::Test {
 protected:
  ShardSet shards_of(const Documents& documents, std::int64_t vocab_size) {
    const std::string path = folder_.file(fmt::format("train-{}.h5", files_++));
    write_shard(path, documents, {vocab_size, 0, "t", {}});
    return ShardSet(path);
  }

  TemporaryFolder folder_;
  int files_ = 0;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
};

TEST_F(CorpusMap, FindsPlantedWordClasses) {
  // Two clusters for every class: with one for each, k-means ends where two classes share a cluster and a third is torn.
  constexpr int classes = 20;
  const ShardSet shards = shards_of(planted_documents(400, classes, 200'000, 1), 400);
  const CodeMap map =
      make_corpus_map(shards, *backend_, {.clusters = 2 * classes, .groups = 4, .codes = 16, .seed = 1});
  map.validate("test");
  EXPECT_GT(pair_precision(map, classes), 0.9);
  EXPECT_LT(pair_precision(make_random_map(400, 2 * classes, 0, 0, 1), classes), 0.1);
}

TEST_F(CorpusMap, ClustersAreEqualToWithinOneAndFollowTheSeed) {
  const ShardSet shards = shards_of(planted_documents(101, 7, 30'000, 2), 101);
  const CorpusMapOptions options{.clusters = 12, .groups = 3, .codes = 8, .seed = 5};
  const CodeMap map = make_corpus_map(shards, *backend_, options);
  std::vector<int> sizes(12, 0);
  for (const std::int32_t cluster : map.cluster_of_token) ++sizes[static_cast<std::size_t>(cluster)];
  for (const int size : sizes) {
    EXPECT_GE(size, 8);
    EXPECT_LE(size, 9);
  }
  const CodeMap again = make_corpus_map(shards, *backend_, options);
  EXPECT_EQ(again.cluster_of_token, map.cluster_of_token);
  EXPECT_EQ(again.member_codes, map.member_codes);
  EXPECT_EQ(again.provenance, map.provenance);
  CorpusMapOptions other = options;
  other.seed = 6;
  EXPECT_NE(make_corpus_map(shards, *backend_, other).member_codes, map.member_codes);
}

TEST_F(CorpusMap, OwnTokensStandAloneAndTheOthersAreBalanced) {
  const ShardSet shards = shards_of(planted_documents(101, 7, 30'000, 2), 101);
  const CodeMap map =
      make_corpus_map(shards, *backend_, {.clusters = 12, .groups = 3, .codes = 8, .own_tokens = 5, .seed = 5});
  map.validate("test");
  std::vector<int> sizes(12, 0);
  for (const std::int32_t cluster : map.cluster_of_token) ++sizes[static_cast<std::size_t>(cluster)];
  const std::vector<std::int32_t> own = most_frequent_tokens(count_tokens(shards, 1'000'000), 5);
  for (std::size_t i = 0; i < own.size(); ++i) {
    EXPECT_EQ(map.cluster_of_token[static_cast<std::size_t>(own[i])], static_cast<std::int32_t>(i));
    EXPECT_EQ(sizes[i], 1);
  }
  for (std::size_t k = own.size(); k < sizes.size(); ++k) {  // 96 tokens in 7 clusters
    EXPECT_GE(sizes[k], 13);
    EXPECT_LE(sizes[k], 14);
  }
}

TEST_F(CorpusMap, WorksForTinyVocabulariesAndOddSizes) {
  const ShardSet shards = shards_of(planted_documents(37, 5, 5'000, 3), 37);
  struct Sizes {
    std::int64_t clusters;
    int groups, codes;
  };
  // One cluster, as many as tokens, more codes than tokens, no codes, groups that do not divide 128.
  for (const Sizes sizes : {Sizes{4, 2, 8}, {1, 2, 8}, {37, 2, 8}, {4, 3, 256}, {4, 0, 0}, {4, 200, 2}, {4, 1, 1}}) {
    const CodeMap map = make_corpus_map(
        shards, *backend_, {.clusters = sizes.clusters, .groups = sizes.groups, .codes = sizes.codes, .seed = 1});
    map.validate("test");
  }
  // A token that was never seen, and text of two tokens only.
  make_corpus_map(shards_of({{1, 2}}, 37), *backend_, {.clusters = 4, .groups = 2, .codes = 8}).validate("test");
}

TEST_F(CorpusMap, ImpossibleSizesAndEmptyTextAreErrors) {
  const ShardSet shards = shards_of(planted_documents(37, 5, 1'000, 3), 37);
  EXPECT_THROW(make_corpus_map(shards, *backend_, {.clusters = 38, .groups = 0, .codes = 0}), UsageError);
  EXPECT_THROW(make_corpus_map(shards, *backend_, {.clusters = 4, .groups = 2, .codes = 300}), UsageError);
  EXPECT_THAT(message_of([&] { make_corpus_map(shards_of({{1}}, 37), *backend_, {.clusters = 4}); }),
              HasSubstr("needs at least 2"));
}

TEST_F(CorpusMap, CountsTokensOfAllOrOfASpreadPart) {
  const auto documents = random_documents(50, 1500, 4);  // about 300,000 tokens: five blocks
  const ShardSet shards = shards_of(documents, 50);
  std::vector<std::int64_t> expected(50, 0);
  for (const std::int32_t token : concatenated(documents)) ++expected[static_cast<std::size_t>(token)];
  EXPECT_EQ(count_tokens(shards, 1'000'000), expected);
  std::int64_t part = 0;
  for (const std::int64_t count : count_tokens(shards, 100'000)) part += count;
  EXPECT_EQ(part, 2 * 65'536);
}

TEST_F(CorpusMap, CountsNeighboursOfBothSides) {
  const auto documents = random_documents(20, 1000, 5);  // more than two blocks: pairs across their borders count too
  const ShardSet shards = shards_of(documents, 20);
  const auto counts = count_tokens(shards, 1'000'000);
  const SparseRows rows = count_neighbours(shards, 1'000'000, counts, 6);
  ASSERT_EQ(rows.rows(), 20);
  ASSERT_EQ(rows.columns, 12);
  // The contexts: the six most frequent tokens.
  std::vector<std::int32_t> contexts(20);
  for (std::int32_t v = 0; v < 20; ++v) contexts[static_cast<std::size_t>(v)] = v;
  std::stable_sort(contexts.begin(), contexts.end(), [&](auto a, auto b) {
    return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
  });
  const auto stream = concatenated(documents);
  std::map<std::pair<std::int32_t, std::int32_t>, float> expected;
  for (std::size_t i = 0; i + 1 < stream.size(); ++i) {
    for (std::int32_t c = 0; c < 6; ++c) {
      if (stream[i + 1] == contexts[static_cast<std::size_t>(c)]) expected[{stream[i], c}] += 1;
      if (stream[i] == contexts[static_cast<std::size_t>(c)]) expected[{stream[i + 1], 6 + c}] += 1;
    }
  }
  std::map<std::pair<std::int32_t, std::int32_t>, float> found;
  for (std::int32_t v = 0; v < 20; ++v) {
    for (auto i = rows.row_begin[static_cast<std::size_t>(v)]; i < rows.row_begin[static_cast<std::size_t>(v) + 1];
         ++i) {
      found[{v, rows.column[static_cast<std::size_t>(i)]}] = rows.value[static_cast<std::size_t>(i)];
    }
  }
  EXPECT_EQ(found, expected);
}

TEST_F(CorpusMap, CountsNeighboursAtGivenDistances) {
  const auto documents = random_documents(20, 1000, 6);
  const ShardSet shards = shards_of(documents, 20);
  const auto counts = count_tokens(shards, 1'000'000);
  const SparseRows rows = count_neighbours(shards, 1'000'000, counts, 20, {-2, 3});  // every token is a context
  const std::vector<std::int32_t> context = most_frequent_tokens(counts, 20);
  const auto stream = concatenated(documents);
  std::vector<float> expected(20 * 40, 0.0f), found(20 * 40, 0.0f);
  const auto column_of = [&](std::int32_t token) {
    return static_cast<std::size_t>(std::find(context.begin(), context.end(), token) - context.begin());
  };
  for (std::size_t i = 0; i < stream.size(); ++i) {
    float* row = expected.data() + static_cast<std::size_t>(stream[i]) * 40;
    if (i >= 2) row[column_of(stream[i - 2])] += 1;
    if (i + 3 < stream.size()) row[20 + column_of(stream[i + 3])] += 1;
  }
  for (std::size_t v = 0; v < 20; ++v) {
    for (auto i = static_cast<std::size_t>(rows.row_begin[v]); i < static_cast<std::size_t>(rows.row_begin[v + 1]);
         ++i) {
      found[v * 40 + static_cast<std::size_t>(rows.column[i])] = rows.value[i];
    }
  }
  EXPECT_EQ(found, expected);
}

TEST_F(CorpusMap, ChiSquareVectorsFindPlantedWordClasses) {
  constexpr int classes = 20;
  const ShardSet shards = shards_of(planted_documents(400, classes, 200'000, 1), 400);
  const CodeMap map = make_corpus_map(
      shards, *backend_,
      {.clusters = 2 * classes, .groups = 4, .codes = 16, .seed = 1, .vectors = VectorKind::chi_square});
  EXPECT_GT(pair_precision(map, classes), 0.9);
}

}  // namespace
}  // namespace vqlm
