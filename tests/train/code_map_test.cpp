#include "core/model/head/code_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "data/hdf5/h5.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"
#include "train/codes/code_map_file.h"

namespace vqlm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<std::int64_t> cluster_sizes(const CodeMap& map) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(map.clusters), 0);
  for (const std::int32_t cluster : map.cluster_of_token) ++sizes[static_cast<std::size_t>(cluster)];
  return sizes;
}

TEST(CodeMap, RandomMapsAreBalancedAndFollowTheSeed) {
  for (const std::int64_t clusters : {1, 4, 36, 37}) {
    const CodeMap map = make_random_map(37, clusters, 3, 256, 1);
    map.validate("test");
    for (const std::int64_t size : cluster_sizes(map)) {
      EXPECT_GE(size, 37 / clusters);
      EXPECT_LE(size, (37 + clusters - 1) / clusters);
    }
  }
  const CodeMap map = make_random_map(1000, 10, 4, 16, 1);
  EXPECT_EQ(map.cluster_of_token, make_random_map(1000, 10, 4, 16, 1).cluster_of_token);
  EXPECT_NE(map.cluster_of_token, make_random_map(1000, 10, 4, 16, 2).cluster_of_token);
  EXPECT_NE(map.member_codes, make_random_map(1000, 10, 4, 16, 2).member_codes);
  std::vector<int> uses(16, 0);
  for (const std::uint8_t code : map.member_codes) ++uses[code];
  for (const int n : uses) EXPECT_NEAR(n, 250, 6 * std::sqrt(250.0));
}

TEST(CodeMap, FrequencyMapsCutTheRankedTokensIntoBlocks) {
  const CodeMap map = make_frequency_map({5, 9, 1, 9, 0}, 2, 0, 0, 1);
  // Ranked: 1, 3 (a tie keeps the order of ids), 0, 2, 4; blocks of 3 and 2.
  EXPECT_THAT(map.cluster_of_token, ElementsAre(0, 0, 1, 0, 1));
  EXPECT_TRUE(map.member_codes.empty());
  make_frequency_map(std::vector<std::int64_t>(37, 1), 4, 2, 8, 1).validate("test");
}

TEST(CodeMap, ContiguousMapsCutTheIdsIntoBlocks) {
  EXPECT_THAT(make_contiguous_map(5, 2, 0, 0, 1).cluster_of_token, ElementsAre(0, 0, 0, 1, 1));
  make_contiguous_map(37, 4, 2, 8, 1).validate("test");
}

TEST(CodeMap, FrequentTokensGetClustersOfTheirOwn) {
  const std::vector<std::int64_t> counts = {5, 9, 1, 9, 0, 2};
  const std::vector<std::int32_t> own = most_frequent_tokens(counts, 2);
  EXPECT_THAT(own, ElementsAre(1, 3));
  EXPECT_THAT(without_tokens(counts, own), ElementsAre(5, 1, 0, 2));
  const CodeMap rest = make_frequency_map(without_tokens(counts, own), 2, 3, 8, 1);
  const CodeMap map = with_own_clusters(rest, own);
  map.validate("test");
  // The others rank 0, 5 | 2, 4: clusters 2 and 3, after the two of one token.
  EXPECT_THAT(map.cluster_of_token, ElementsAre(2, 0, 3, 1, 3, 2));
  const std::vector<std::int32_t> others = {0, 2, 4, 5};
  for (std::size_t row = 0; row < others.size(); ++row) {
    for (std::size_t g = 0; g < 3; ++g) {
      EXPECT_EQ(map.member_codes[static_cast<std::size_t>(others[row]) * 3 + g], rest.member_codes[row * 3 + g]);
    }
  }
  EXPECT_THAT(map.provenance, AllOf(HasSubstr(rest.provenance), HasSubstr("2 most frequent")));
  EXPECT_EQ(with_own_clusters(rest, {}).cluster_of_token, rest.cluster_of_token);
}

TEST(CodeMap, LogUnigramIsSmoothedAndSumsToOne) {
  const std::vector<float> bias = log_unigram({3, 0, 1});
  EXPECT_FLOAT_EQ(bias[0], std::log(4.0f / 7));
  EXPECT_FLOAT_EQ(bias[1], std::log(1.0f / 7));
  EXPECT_FLOAT_EQ(bias[2], std::log(2.0f / 7));
}

TEST(CodeMap, WrongSizesAreUsageErrors) {
  EXPECT_THROW(make_random_map(10, 11, 0, 0, 1), UsageError);
  EXPECT_THAT(message_of([] { make_random_map(10, 11, 0, 0, 1); }), HasSubstr("head.clusters = 11"));
  EXPECT_THAT(message_of([] { make_random_map(10, 0, 0, 0, 1); }), HasSubstr("head.clusters = 0"));
  EXPECT_THAT(message_of([] { make_random_map(10, 2, 1, 257, 1); }), HasSubstr("head.codes = 257"));
  EXPECT_THAT(message_of([] { make_random_map(10, 2, 0, 4, 1); }), HasSubstr("must be 0 where head.groups = 0"));
  EXPECT_THAT(message_of([] { make_random_map(10, 2, -1, 4, 1); }), HasSubstr("head.groups = -1"));
}

TEST(CodeMap, ValidateNamesTheFirstWrongValue) {
  const CodeMap good = make_random_map(10, 3, 2, 4, 1);
  const auto complaint = [&](auto change) {
    CodeMap map = good;
    change(map);
    return message_of([&] { map.validate("map.h5"); });
  };
  EXPECT_EQ(complaint([](CodeMap&) {}), "no error");
  EXPECT_THAT(complaint([](CodeMap& m) { m.cluster_of_token[4] = 3; }),
              HasSubstr("map.h5: token 4 is in cluster 3; it must be in [0, 3)"));
  EXPECT_THAT(complaint([](CodeMap& m) { m.cluster_of_token[4] = -1; }), HasSubstr("token 4 is in cluster -1"));
  EXPECT_THAT(complaint([](CodeMap& m) {
                for (auto& cluster : m.cluster_of_token) cluster = cluster == 1 ? 0 : cluster;
              }),
              HasSubstr("cluster 1 has no member"));
  EXPECT_THAT(complaint([](CodeMap& m) { m.member_codes[7] = 4; }),
              HasSubstr("token 3 has code 4 in group 1; it must be below 4"));
  EXPECT_THAT(complaint([](CodeMap& m) { m.cluster_of_token.pop_back(); }), HasSubstr("clusters for 9 tokens"));
  EXPECT_THAT(complaint([](CodeMap& m) { m.member_codes.pop_back(); }), HasSubstr("19 member codes"));
  EXPECT_THAT(complaint([](CodeMap& m) { m.clusters = 0; }), HasSubstr("map.h5: head.clusters = 0"));
}

class CodeMapFile : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string path_ = folder_.file("map.h5");
};

TEST_F(CodeMapFile, KeepsTheMapAndItsProvenance) {
  for (const int groups : {0, 5}) {
    CodeMap map = make_random_map(1000, 10, groups, groups > 0 ? 200 : 0, 1);
    map.provenance = "made by a test: ü";
    map.counted_tokens = 12'345'678'901;
    save_code_map(path_, map);
    const CodeMap loaded = load_code_map(path_);
    EXPECT_EQ(loaded.vocab_size, 1000);
    EXPECT_EQ(loaded.clusters, 10);
    EXPECT_EQ(loaded.groups, groups);
    EXPECT_EQ(loaded.codes, map.codes);
    EXPECT_EQ(loaded.cluster_of_token, map.cluster_of_token);
    EXPECT_EQ(loaded.member_codes, map.member_codes);
    EXPECT_EQ(loaded.provenance, map.provenance);
    EXPECT_EQ(loaded.counted_tokens, map.counted_tokens);
    EXPECT_FALSE(std::filesystem::exists(path_ + ".partial"));
  }
}

TEST_F(CodeMapFile, DamageIsNamedWithTheWayOut) {
  const CodeMap map = make_random_map(500, 10, 4, 16, 1);
  save_code_map(path_, map);
  const std::string whole = read_bytes(path_);
  const auto complaint = [&] { return message_of([&] { load_code_map(path_); }); };
  for (const std::size_t kept : {whole.size() - 1, whole.size() / 2, std::size_t{40}, std::size_t{0}}) {
    write_bytes(path_, whole.substr(0, kept));
    EXPECT_THAT(complaint(), AllOf(HasSubstr("map.h5"), HasSubstr("name another map"), Not(HasSubstr("\n"))));
  }
  const Philox rng(2, "flips");
  int found = 0;
  constexpr int flips = 200;
  for (int i = 0; i < flips; ++i) {
    std::string damaged = whole;
    const std::size_t at = rng.below(static_cast<std::uint64_t>(i), whole.size());
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (i % 8)));
    write_bytes(path_, damaged);
    if (complaint() != "no error") {
      ++found;
      EXPECT_THAT(complaint(), HasSubstr("map.h5")) << "byte " << at;
    } else {  // a byte that HDF5 does not use
      EXPECT_EQ(load_code_map(path_).cluster_of_token, map.cluster_of_token) << "byte " << at;
      EXPECT_EQ(load_code_map(path_).member_codes, map.member_codes) << "byte " << at;
    }
  }
  EXPECT_GT(found, 0);
}

TEST_F(CodeMapFile, KeepsWhatTheMapWasMadeFromAndNamesTheDamagedDataset) {
  const CodeMap map = make_random_map(300, 10, 4, 16, 1);
  save_code_map(path_, map);
  EXPECT_TRUE(load_map_evidence(path_).counts.empty());
  EXPECT_TRUE(load_map_evidence(path_).vectors.empty());
  MapEvidence evidence{std::vector<std::int64_t>(300, std::int64_t{1} << 40), 24, std::vector<float>(300 * 24)};
  const Philox rng(3, "vectors");
  for (std::size_t i = 0; i < evidence.vectors.size(); ++i) evidence.vectors[i] = rng.normal(i);
  save_code_map(path_, map, evidence);
  EXPECT_EQ(load_code_map(path_).member_codes, map.member_codes);
  EXPECT_EQ(load_map_evidence(path_).counts, evidence.counts);
  EXPECT_EQ(load_map_evidence(path_).dims, 24);
  EXPECT_EQ(load_map_evidence(path_).vectors, evidence.vectors);
  std::string damaged = read_bytes(path_);
  damaged[damaged.size() / 2] ^= 1;  // most of the file are the vectors
  write_bytes(path_, damaged);
  EXPECT_THAT(message_of([&] { load_map_evidence(path_); }),
              AllOf(HasSubstr("map.h5: vectors"), HasSubstr("make the map again")));

  evidence.counts[7] = -1;
  save_code_map(path_, map, evidence);
  EXPECT_THAT(message_of([&] { load_map_evidence(path_); }), HasSubstr("map.h5: counts: token 7 was seen -1"));
  evidence.counts[7] = 1;
  evidence.vectors[24] = NAN;
  save_code_map(path_, map, evidence);
  EXPECT_THAT(message_of([&] { load_map_evidence(path_); }), HasSubstr("map.h5: vectors: nan in the row of token 1"));
}

TEST_F(CodeMapFile, OtherFormatsAndVersionsAreRefused) {
  const auto complaint = [&](const std::string& format, std::int64_t version, std::int64_t clusters) {
    h5::File file = h5::File::create(path_);
    file.set_attribute("format", format);
    file.set_attribute("version", version);
    file.set_attribute("vocab_size", std::int64_t{3});
    file.set_attribute("clusters", clusters);
    file.set_attribute("groups", std::int64_t{0});
    file.set_attribute("codes", std::int64_t{0});
    file.set_attribute("provenance",
                       "frequency: 77 counted tokens, seed 1");  // as an earlier version: no more attributes
    file.create_dataset("cluster_of_token", h5::Type::i32, {3})
        .write_all<std::int32_t>(std::vector<std::int32_t>{0, 1, 1});
    file.close();
    return message_of([&] { load_code_map(path_); });
  };
  EXPECT_EQ(complaint("vqlm-code-map", 1, 2), "no error");
  EXPECT_EQ(load_code_map(path_).counted_tokens, 77);
  EXPECT_THAT(complaint("vqlm-tokens", 1, 2), HasSubstr("is not a code map"));
  EXPECT_THAT(complaint("vqlm-code-map", 2, 2), HasSubstr("has code map version 2"));
  EXPECT_THAT(complaint("vqlm-code-map", 1, 3), HasSubstr("cluster 2 has no member"));
  EXPECT_THAT(complaint("vqlm-code-map", 1, 1), HasSubstr("token 1 is in cluster 1"));
  EXPECT_THAT(complaint("vqlm-code-map", 1, 5), HasSubstr("head.clusters = 5"));
}

}  // namespace
}  // namespace vqlm
