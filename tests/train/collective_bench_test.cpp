#include "train/tools/bench/collective_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "data/files/atomic_file.h"
#include "train/tools/plan/measured_rates.h"

namespace vqlm {
namespace {

TEST(RoundsOfPairsTest, HaveEveryPairOnceAndEveryHostOnceARound) {
  for (int hosts = 1; hosts <= 9; ++hosts) {
    std::set<std::pair<int, int>> all;
    const auto rounds = rounds_of_pairs(hosts);
    for (const auto& round : rounds) {
      std::set<int> busy;
      for (const auto& [a, b] : round) {
        EXPECT_LT(a, b);
        EXPECT_LT(b, hosts);
        EXPECT_TRUE(busy.insert(a).second && busy.insert(b).second) << hosts << " hosts";
        EXPECT_TRUE(all.insert({a, b}).second) << hosts << " hosts: " << a << ", " << b << " twice";
      }
    }
    EXPECT_EQ(static_cast<int>(all.size()), hosts * (hosts - 1) / 2);
    EXPECT_LE(static_cast<int>(rounds.size()), hosts);
  }
}

// The factors of nccl-tests' PERFORMANCE.md.
TEST(CollectiveRateTest, BusBandwidthIsWhatARankSendsInARing) {
  EXPECT_DOUBLE_EQ((CollectiveRate{.collective = "all_reduce", .bytes = 8000, .seconds = 2, .ranks = 4}.bus_rate()),
                   6000);
  EXPECT_DOUBLE_EQ((CollectiveRate{.collective = "all_gather", .bytes = 8000, .seconds = 2, .ranks = 4}.bus_rate()),
                   3000);
}

TEST(CollectiveBenchTest, OneRankHasNothingToExchange) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const auto result = run_collective_bench(*backend, grid, {"h1"}, {});
  EXPECT_TRUE(result.groups.empty());
  EXPECT_THAT(to_text(result), ::testing::HasSubstr("one rank: nothing to exchange"));
  EXPECT_THROW(run_collective_bench(*backend, grid, {"h1"}, {.factor = 1}), UsageError);
  EXPECT_THROW(run_collective_bench(*backend, grid, {"h1"}, {.min_bytes = 10, .max_bytes = 9}), UsageError);
}

class MeasuredRatesTest : public ::testing::Test {
 protected:
  std::string file(const std::string& text) {
    const std::string path = ::testing::TempDir() + "/measured.json";
    write_file_atomically(path, text);
    return path;
  }
};

TEST_F(MeasuredRatesTest, ReplaceThoseThatAreStated) {
  const StatedRates rates =
      with_measured({}, file(R"({"rates": {"network_bytes_per_second": 5e8, "collective_seconds": 2e-5}})"));
  EXPECT_EQ(rates.network_bytes, 5e8);
  EXPECT_EQ(rates.collective_seconds, 2e-5);
  EXPECT_EQ(rates.tensor_link_bytes, StatedRates{}.tensor_link_bytes);
}

TEST_F(MeasuredRatesTest, AreRefusedByNameWhereTheyAreNone) {
  for (const auto& [text, word] : std::map<std::string, std::string>{
           {"{}", "has no \"rates\""},
           {"no JSON", "has no \"rates\""},
           {R"({"rates": {"network_bytes_per_second": 0}})", "rates.network_bytes_per_second = 0"},
           {R"({"rates": {"tensor_bytes_per_second": "fast"}})", "rates.tensor_bytes_per_second = \"fast\""}}) {
    try {
      with_measured({}, file(text));
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(word));
      EXPECT_THAT(error.what(), ::testing::HasSubstr("measured.json"));
    }
  }
}

}  // namespace
}  // namespace vqlm
