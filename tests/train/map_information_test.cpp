#include "train/codes/map_information.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "train/codes/map_distortion.h"

namespace vqlm {
namespace {

/// Dense counts as rows; zeros are left out.
BigramTable table_of(const std::vector<std::vector<float>>& counts) {
  BigramTable table;
  table.counts.columns = static_cast<std::int64_t>(counts.front().size());
  table.counts.row_begin.push_back(0);
  for (const auto& row : counts) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      if (row[c] == 0) continue;
      table.counts.column.push_back(static_cast<std::int32_t>(c));
      table.counts.value.push_back(row[c]);
    }
    table.counts.row_begin.push_back(static_cast<std::int64_t>(table.counts.column.size()));
  }
  return table;
}

TEST(MapInformation, FollowsItsFormula) {
  // Two previous tokens, four tokens; the previous one tells whether the next is of {0, 1} or {2, 3}.
  const BigramTable table = table_of({{30, 0}, {10, 0}, {0, 20}, {0, 20}});
  // 40 : 40, told in full: log 2; two cells, two rows, two columns: the correction is (2 - 2 - 2 + 1) / 160.
  const double bound = 8 * 0x1p-52 * 80;  // sums of eight terms of up to n log n / N
  EXPECT_NEAR(previous_token_information(table, {0, 0, 1, 1}, 2), std::log(2.0) + 1.0 / 160, bound);
  // Clusters that mix both: p(c, k) = 30, 10 | 20, 20.
  const double p = 30.0 / 80 * std::log(30.0 * 80 / (40 * 50)) + 10.0 / 80 * std::log(10.0 * 80 / (40 * 30)) +
                   20.0 / 80 * std::log(20.0 * 80 / (40 * 50)) + 20.0 / 80 * std::log(20.0 * 80 / (40 * 30));
  EXPECT_NEAR(previous_token_information(table, {0, 1, 0, 1}, 2), p - 1.0 / 160, bound);
  // One cluster tells nothing, and nothing is below that.
  EXPECT_EQ(previous_token_information(table, {0, 0, 0, 0}, 1), 0);
  EXPECT_NEAR(previous_token_information(table), std::log(2.0) + 1.0 / 160, bound);
}

TEST(MapInformation, BigramsHoldEveryToken) {
  TemporaryFolder folder;
  const Documents documents = random_documents(20, 700, 3);  // about 140,000 tokens: three blocks
  write_shard(folder.file("train-0.h5"), documents, {20, 0, "t", {}});
  const ShardSet shards(folder.file("train-0.h5"));
  const std::vector<std::int64_t> counts = count_tokens(shards, 1'000'000);
  const std::vector<std::int32_t> frequent = most_frequent_tokens(counts, 5);
  const auto stream = concatenated(documents);
  std::map<std::pair<std::int32_t, std::int32_t>, float> expected;  // (token, column)
  expected[{stream[0], 5}] += 1;                                    // nothing stands before the first
  for (std::size_t i = 1; i < stream.size(); ++i) {
    const auto at = std::find(frequent.begin(), frequent.end(), stream[i - 1]);
    expected[{stream[i], static_cast<std::int32_t>(at - frequent.begin())}] += 1;
  }
  const BigramTable table = count_bigrams(shards, 1'000'000, counts, 5);
  ASSERT_EQ(table.counts.rows(), 20);
  ASSERT_EQ(table.counts.columns, 6);
  std::map<std::pair<std::int32_t, std::int32_t>, float> found;
  for (std::int32_t v = 0; v < 20; ++v) {
    for (auto i = static_cast<std::size_t>(table.counts.row_begin[static_cast<std::size_t>(v)]);
         i < static_cast<std::size_t>(table.counts.row_begin[static_cast<std::size_t>(v) + 1]); ++i) {
      found[{v, table.counts.column[i]}] = table.counts.value[i];
    }
  }
  EXPECT_EQ(found, expected);
}

TEST(MapInformation, AgreementOfClusterings) {
  const ClusterAgreement same = cluster_agreement({0, 0, 1, 1, 2}, {2, 2, 0, 0, 1});
  EXPECT_NEAR(same.normalized, 1, 16 * 0x1p-52);
  EXPECT_NEAR(same.adjusted_rand, 1, 16 * 0x1p-52);
  // Pairs together: 2 of 15 in both, 6 in a, 3 in b; by chance 6 * 3 / 15: (2 - 1.2) / (4.5 - 1.2).
  const ClusterAgreement part = cluster_agreement({0, 0, 0, 1, 1, 1}, {0, 0, 1, 1, 2, 2});
  EXPECT_NEAR(part.adjusted_rand, 0.8 / 3.3, 16 * 0x1p-52);
  // H(a) = log 2, H(b) = log 3, I = H(a) - H(a|b) with only the middle cluster of b undecided.
  EXPECT_NEAR(part.mutual_information, std::log(2.0) * 2 / 3, 16 * 0x1p-52);
  EXPECT_NEAR(part.normalized, std::log(2.0) * 2 / 3 / ((std::log(2.0) + std::log(3.0)) / 2), 16 * 0x1p-52);
  EXPECT_EQ(cluster_agreement({0, 0, 0}, {0, 0, 0}).adjusted_rand, 1);
}

TEST(MapDistortion, ClustersAndCodesKeepWhatTheyHold) {
  // Token v: centre of its cluster (far apart) plus a piece of its code in each of two groups of one dimension.
  const CodeMap map{.vocab_size = 8,
                    .clusters = 2,
                    .groups = 2,
                    .codes = 2,
                    .cluster_of_token = {0, 0, 0, 0, 1, 1, 1, 1},
                    .member_codes = {0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1},
                    .provenance = ""};
  std::vector<float> x;
  for (int v = 0; v < 8; ++v) {
    for (int g = 0; g < 2; ++g) {
      const float centre = v < 4 ? -8.0f : 8.0f;
      x.push_back(centre + (map.member_codes[static_cast<std::size_t>(2 * v + g)] == 0 ? -1.0f : 1.0f));
    }
  }
  const auto bands = distortion_by_frequency(map, x, 2, {});
  ASSERT_EQ(bands.size(), 2u);  // all, and the ids 1 to 8
  // Squared lengths: 64 + 1 a dimension in all, 1 of it inside clusters. Small integers: exact but for the quotient.
  EXPECT_DOUBLE_EQ(bands[0].kept_by_clusters, 1 - 1.0 / 65);
  EXPECT_DOUBLE_EQ(bands[0].kept_by_codes, 1);
  // Noise that no code holds: half of the variance inside clusters is lost when one group's codes are all the same.
  CodeMap coarse = map;
  for (std::size_t v = 0; v < 8; ++v) coarse.member_codes[2 * v] = 0;
  EXPECT_DOUBLE_EQ(distortion_by_frequency(coarse, x, 2, {})[0].kept_by_codes, 1 - 0.5 / 65);
}

TEST(MapDistortion, BandsFollowTheCounts) {
  const CodeMap map = make_random_map(1500, 10, 0, 0, 1);
  std::vector<float> x(1500, 0.0f);
  std::vector<std::int64_t> counts(1500, 1);
  // The 100 most frequent tokens stand apart from the others by their cluster's parity alone.
  for (std::size_t v = 0; v < 100; ++v) counts[1399 - v] = 1'000'000;
  for (std::size_t v = 0; v < 1500; ++v) x[v] = static_cast<float>(map.cluster_of_token[v] % 2);
  for (std::size_t v = 0; v < 1300; ++v) x[v] += v % 2 == 0 ? 64.0f : -64.0f;  // rare: far from any cluster's mean
  const auto bands = distortion_by_frequency(map, x, 1, counts);
  ASSERT_EQ(bands.size(), 4u);
  EXPECT_EQ(bands[1].last, 100);
  EXPECT_EQ(bands[2].last, 1000);
  EXPECT_EQ(bands[3].last, 1500);
  EXPECT_GT(bands[1].kept_by_clusters, bands[0].kept_by_clusters + 0.1);
  EXPECT_EQ(bands[1].kept_by_codes, bands[1].kept_by_clusters);
}

}  // namespace
}  // namespace vqlm
