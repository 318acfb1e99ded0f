// vqlm bench head: its keys, sizes, refusals and what it skips. Nothing here asserts how long anything takes.
#include "train/tools/bench/head_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "train/tools/bench/head_grid.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;

HeadBenchOptions tiny_heads() {
  HeadBenchOptions options;
  options.vocab_size = 101;
  options.width = 16;
  options.rows = 33;
  options.clusters = 7;
  options.groups = 4;
  options.codes = 5;
  options.repeats = 2;
  options.decode_tokens = 3;
  options.top_k = 10;
  return options;
}

constexpr MachineRates some_rates{.matmul_peak = 1e11, .memory_rate = 1e10};

TEST(HeadBench, ReportsItsKeysAndSizes) {
  const auto backend = make_cpu_backend(1);
  for (const char* map : {"random", "frequency"}) {
    HeadBenchOptions options = tiny_heads();
    options.map = map;
    const HeadBenchResult result = run_head_bench(*backend, options, some_rates);
    const auto json = nlohmann::json::parse(to_json(result));
    for (const char* key :
         {"ratio_dense_over_vq", "seconds_dense", "seconds_vq", "matmul_peak_flops", "memory_bytes_per_second"}) {
      EXPECT_GT(json.at(key).get<double>(), 0) << key;
    }
    EXPECT_EQ(json.at("dense").at("matrix_parameters"), 101 * 16);
    EXPECT_EQ(json.at("low_rank").at("matrix_parameters"), 4 * (101 + 16));  // a quarter of the width
    EXPECT_EQ(json.at("vq").at("matrix_parameters"), (7 + 5) * 16);
    EXPECT_EQ(json.at("vq_embedding").at("matrix_parameters"), 7 * 16);     // the table is the model's
    EXPECT_EQ(json.at("vq_logits").at("matrix_parameters"), (7 + 5) * 16);  // the same numbers, all in codes
    EXPECT_EQ(json.at("dense_plain").at("mean_nll"), json.at("dense").at("mean_nll"));
    // Untrained heads predict about the unigram distribution: above 0 and below twice a uniform guess.
    for (const char* head : {"dense_plain", "dense", "low_rank", "vq", "vq_embedding", "vq_logits"}) {
      EXPECT_GT(json.at(head).at("mean_nll").get<double>(), 0) << head;
      EXPECT_LT(json.at(head).at("mean_nll").get<double>(), 2 * std::log(101.0)) << head;
      EXPECT_GT(json.at(head).at("floor_seconds").get<double>(), 0) << head;
    }
    // 6 N V d operations at the peak outlast the bytes at the memory's rate.
    EXPECT_DOUBLE_EQ(json.at("dense").at("floor_seconds").get<double>(),
                     std::max(6 * 33 * 101 * 16 / 1e11, (101 * 16 * 12 + 12 * 101 + 8 * 33 * 16) / 1e10));
    EXPECT_THAT(to_text(result), HasSubstr("dense / vq"));
  }
}

TEST(HeadBench, ReportsDecoding) {
  const auto backend = make_cpu_backend(1);
  const HeadBenchResult result = run_head_bench(*backend, tiny_heads(), some_rates);
  const auto decoding = nlohmann::json::parse(to_json(result)).at("decoding");
  EXPECT_EQ(decoding.at("tokens"), 3);
  for (const char* operation : {"log_probs", "arg_max", "top_k", "sample"}) {
    EXPECT_GT(decoding.at("ratios_dense_over_vq").at(operation).get<double>(), 0) << operation;
    for (const char* head : {"dense", "low_rank", "vq", "vq_embedding", "vq_logits"}) {
      for (const char* key : {"seconds", "seconds_min", "bytes", "bytes_per_second", "floor_seconds"}) {
        EXPECT_GT(decoding.at(head).at(operation).at(key).get<double>(), 0) << head << " " << operation << " " << key;
      }
    }
  }
  const auto& vq = decoding.at("vq");
  EXPECT_EQ(decoding.at("dense").at("log_probs").at("bytes"), 101 * (16 * 4 + 8));
  EXPECT_EQ(decoding.at("low_rank").at("log_probs").at("bytes"), 4 * 16 * 4 + 101 * (4 * 4 + 8));
  EXPECT_EQ(vq.at("log_probs").at("bytes"), 7 * (16 * 4 + 4) + 5 * 16 * 4 + 101 * (4 + 4 + 4 + 4));
  EXPECT_EQ(decoding.at("vq_embedding").at("log_probs").at("bytes"), 7 * (16 * 4 + 4) + 101 * (16 * 4 + 4 + 4 + 4));
  EXPECT_EQ(vq.at("log_probs").at("clusters_visited"), 0);
  for (const char* searched : {"arg_max", "top_k"}) {
    EXPECT_GE(vq.at(searched).at("clusters_visited").get<double>(), 1) << searched;
    EXPECT_LE(vq.at(searched).at("clusters_visited").get<double>(), 7) << searched;
  }
  EXPECT_EQ(vq.at("sample").at("clusters_visited"), 1);
  EXPECT_THAT(to_text(result), HasSubstr("one token at a time"));

  HeadBenchOptions none = tiny_heads();
  none.decode_tokens = 0;
  EXPECT_FALSE(nlohmann::json::parse(to_json(run_head_bench(*backend, none, some_rates))).contains("decoding"));
}

TEST(HeadBench, SkipsByNameWhatDoesNotFit) {
  const auto backend = make_cpu_backend(1);
  HeadBenchOptions options = tiny_heads();
  options.rows = 1000;
  // Chunked dense: V (d + 1) 8 bytes and one chunk; here the chunk holds all rows, so both need 418 kB.
  options.memory = 200'000;
  const HeadBenchResult result = run_head_bench(*backend, options, some_rates);
  const auto json = nlohmann::json::parse(to_json(result));
  EXPECT_THAT(json.at("dense_plain").at("skipped").get<std::string>(), HasSubstr("fewer --rows"));
  EXPECT_THAT(json.at("dense").at("skipped").get<std::string>(), HasSubstr("--memory"));
  EXPECT_TRUE(json.at("ratio_dense_over_vq").is_null());
  EXPECT_TRUE(json.at("seconds_dense").is_null());
  EXPECT_GT(json.at("seconds_vq").get<double>(), 0);
  EXPECT_GT(json.at("decoding").at("dense").at("log_probs").at("seconds").get<double>(), 0);  // one row fits
  EXPECT_THAT(to_text(result), HasSubstr("dense_plain   skipped: needs"));

  options = tiny_heads();
  options.time_limit = 1e-5;  // 6 x 33 x 101 x 16 operations a pass at 1e11, times 4
  const auto timed = nlohmann::json::parse(to_json(run_head_bench(*backend, options, some_rates)));
  EXPECT_THAT(timed.at("dense").at("skipped").get<std::string>(), HasSubstr("above --time-limit"));
  EXPECT_TRUE(timed.at("vq").contains("seconds"));
}

TEST(HeadBench, TheRankIsAtMostTheWidth) {
  const auto backend = make_cpu_backend(1);
  HeadBenchOptions options = tiny_heads();
  options.rank = 16;
  options.repeats = 1;
  options.decode_tokens = 0;
  EXPECT_EQ(run_head_bench(*backend, options, some_rates).find(BenchedHead::low_rank)->training.matrix_parameters,
            16 * (101 + 16));
  options.rank = 17;
  EXPECT_THROW(run_head_bench(*backend, options, some_rates), UsageError);
}

TEST(HeadBench, WithoutGroupsIsThePublishedMethodAlone) {
  const auto backend = make_cpu_backend(1);
  HeadBenchOptions options = tiny_heads();
  options.groups = 0;
  const auto json = nlohmann::json::parse(to_json(run_head_bench(*backend, options, some_rates)));
  EXPECT_EQ(json.at("vq").at("matrix_parameters"), 7 * 16);
  EXPECT_FALSE(json.contains("vq_logits"));
}

TEST(HeadGrid, OneLineASize) {
  const auto backend = make_cpu_backend(1);
  HeadBenchOptions options = tiny_heads();
  options.repeats = 1;
  options.memory = 400'000;
  const auto grid = run_head_grid(*backend, options, {101, 3201}, {16, 32});
  ASSERT_EQ(grid.size(), 4u);
  EXPECT_EQ(grid[1].options.width, 32);
  EXPECT_EQ(grid[2].options.vocab_size, 3201);
  EXPECT_EQ(grid[2].options.codes, 16);  // 3201 / 200
  const auto json = nlohmann::json::parse(grid_json(grid)).at("grid");
  EXPECT_GT(json.at(0).at("ratio_dense_over_vq").get<double>(), 0);
  EXPECT_TRUE(json.at(3).at("dense").contains("skipped"));
  EXPECT_THAT(grid_text(grid), HasSubstr("V 3201 d 32 dense_plain training: needs"));
  EXPECT_THROW(run_head_grid(*backend, options, {0}, {16}), UsageError);
}

TEST(HeadGrid, BudgetsAreAboutOnePercent) {
  for (const std::int64_t vocabulary : {32000, 50257, 128000, 256000}) {
    for (const std::int64_t width : {512, 768, 2048, 4096}) {
      const HeadBudget budget = budget_for(vocabulary, width);
      const double share = static_cast<double>(budget.clusters + budget.codes) / static_cast<double>(vocabulary);
      EXPECT_NEAR(share, 0.01, 3e-4) << vocabulary;
      EXPECT_LE(budget.codes, 256);
      EXPECT_EQ(width % budget.groups, 0);
      EXPECT_GE(budget.groups, 32);
    }
  }
  EXPECT_EQ(budget_for(50257, 768).clusters, 256);
  EXPECT_EQ(budget_for(50257, 768).groups, 32);
  EXPECT_EQ(budget_for(5, 7).clusters, 5);
  EXPECT_EQ(budget_for(5, 7).groups, 1);
}

std::string refusal(const HeadBenchOptions& options) {
  const auto backend = make_cpu_backend(1);
  try {
    run_head_bench(*backend, options, some_rates);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(HeadBench, RefusesSizesWithTheWayOut) {
  const auto refused = [](const auto& change) {
    HeadBenchOptions options = tiny_heads();
    change(options);
    return refusal(options);
  };
  EXPECT_THAT(refused([](auto& o) { o.groups = 3; }),
              HasSubstr("--groups 3 does not divide --width 16: choose --groups 2"));
  EXPECT_THAT(refused([](auto& o) { o.clusters = 102; }), HasSubstr("at most 101"));
  EXPECT_THAT(refused([](auto& o) { o.codes = 257; }), HasSubstr("1 to 256"));
  EXPECT_THAT(refused([](auto& o) { o.rows = 0; }), HasSubstr("--rows 0"));
  EXPECT_THAT(refused([](auto& o) { o.map = "corpus"; }), HasSubstr("--map corpus"));
  EXPECT_THAT(refused([](auto& o) { o.top_k = 0; }), HasSubstr("--top-k 0"));
  EXPECT_THAT(refused([](auto& o) { o.decode_tokens = -1; }), HasSubstr("--decode -1"));
  EXPECT_THAT(refused([](auto& o) { o.spread = -2; }), HasSubstr("--spread -2"));
}

}  // namespace
}  // namespace vqlm
