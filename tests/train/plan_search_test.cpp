// The search for a grid and micro-batch against small cases worked out by hand, where one rate alone takes time.
#include "train/tools/plan/plan_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/error.h"
#include "tests/train/tiny_run.h"
#include "train/tools/plan/search_report.h"

namespace vqlm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double endless = 1e30;
constexpr std::size_t no_limit = std::size_t{1} << 60;

/// A node of 8 whose rates are endless but for those that a test sets; nothing is lost.
Cluster endless_cluster() {
  return {.gpu = {.name = "test",
                  .description = "a test's",
                  .memory_bytes = endless,
                  .product_flops = endless,
                  .memory_rate = endless,
                  .link_rate = endless,
                  .network_rate = endless},
          .gpus_per_node = 8,
          .attainment = {.products = 1, .memory = 1, .links = 1, .op_seconds = 0, .collective_seconds = 0}};
}

/// 4,096 classes, which a GPU does not pad, and `batch` sequences of 32 tokens a step.
Config config_of(std::int64_t batch) {
  Config config = testing::tiny_config(HeadKind::dense, "none", "run");
  config.data.heldout.clear();
  config.train.global_batch = batch;
  config.parallel = {.data = 1, .tensor = 1};
  resolve(config, 4096, 1);
  return config;
}

Config with(Config config, const PlannedChoice& choice) {
  config.parallel.data = choice.data;
  config.parallel.tensor = choice.tensor;
  config.train.micro_batch = choice.micro_batch;
  config.train.recompute = choice.recompute;
  return config;
}

std::vector<std::int64_t> micro_batches(const std::vector<PlannedChoice>& choices,
                                        Recompute recompute = Recompute::none) {
  std::vector<std::int64_t> sizes;
  for (const PlannedChoice& choice : choices) {
    if (choice.recompute == recompute) sizes.push_back(choice.micro_batch);
  }
  return sizes;
}

TEST(GpuKinds, RatesFollowTheTopology) {
  Cluster cluster = endless_cluster();
  cluster.gpu.link_rate = 300;
  cluster.gpu.network_rate = 50;
  cluster.attainment.links = 0.5;  // 150 and 25
  const auto expect = [&](int data, int tensor, double data_rate, double tensor_rate, bool one_link) {
    SCOPED_TRACE(std::to_string(data) + "x" + std::to_string(tensor));
    const StatedRates rates = rates_of(cluster, data, tensor);
    EXPECT_DOUBLE_EQ(rates.network_bytes, data_rate);
    EXPECT_DOUBLE_EQ(rates.tensor_link_bytes, tensor_rate);
    EXPECT_EQ(rates.one_link, one_link);
  };
  expect(8, 1, 150, 150, true);
  expect(2, 4, 150, 150, true);
  expect(16, 1, 150, 150, false);  // 8 in a node send 200 out of it: the links are slower
  expect(8, 2, 100, 150, false);   // 4
  expect(4, 4, 50, 150, false);    // 2
  expect(2, 8, 25, 150, false);    // 1
  expect(1, 16, 25, 150, false);   // half of a tensor group in a node: 8 send 200
  expect(8, 3, 50, 25, false);     // groups of 3 lie across nodes of 8, some with one rank in a node
  // All-to-all of 16: 8 of the other 15 by the network at 25, 7 by links at 150.
  EXPECT_DOUBLE_EQ(rates_of(cluster, 16, 1).exchange_bytes, 25 * 15.0 / 8);
  EXPECT_DOUBLE_EQ(rates_of(cluster, 8, 1).exchange_bytes, 150);
}

TEST(GpuKinds, EfficienciesAndThePeak) {
  Cluster cluster{.gpu = gpu_kind("h100-80"), .gpus_per_node = 8, .attainment = {}};
  const StatedRates rates = rates_of(cluster, 8, 1);
  EXPECT_DOUBLE_EQ(rates.product_flops, 0.8 * 989.4e12);
  EXPECT_DOUBLE_EQ(rates.memory_bytes, 0.9 * 3350e9);
  EXPECT_DOUBLE_EQ(rates.network_bytes, 0.8 * 450e9);
  EXPECT_DOUBLE_EQ(rates.peak_flops, 989.4e12);
  try {
    gpu_kind("h100");
    FAIL() << "there are several";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--gpu h100"));
    EXPECT_THAT(error.what(), HasSubstr("rtx4090"));
    EXPECT_THAT(error.what(), HasSubstr("--peak-tflops"));
  }
}

// 18 choices with each word of train.recompute: with 1, 2 and 4 data ranks 24, 12 and 6 sequences each have 8, 6 and 4
// divisors. Work is divided without rest, so that all take operations / peak. "cheap" computes no product again.
TEST(PlanSearch, WhereProductsAloneTakeTimeOperationsDecide) {
  PlanSearch search{.cluster = endless_cluster(), .gpus = 4, .available = no_limit};
  search.cluster.gpu.product_flops = 1e12;
  const Config config = config_of(24);
  const SearchResult result = search_plans(config, search);
  ASSERT_EQ(result.fitting.size(), 54U);
  EXPECT_TRUE(result.refused.empty() && result.too_large.empty());
  EXPECT_EQ(result.choices(), 54);
  const StepPlan alone = plan_step(config, {});
  Config block = config;
  block.train.recompute = Recompute::block;
  const double model_flops = alone.flops_per_token * 24 * 32;
  for (std::size_t i = 0; i < result.fitting.size(); ++i) {
    const PlannedChoice& choice = result.fitting[i];
    SCOPED_TRACE(choice_text(choice));
    EXPECT_EQ(choice.recompute == Recompute::block, i >= 36);  // the slowest
    const double flops = model_flops + (i < 36 ? 0 : recomputation_cost(block, {}, plan_step(block, {})).flops);
    EXPECT_NEAR(choice.seconds, flops / (4 * 1e12), 1e-9 * choice.seconds);
    EXPECT_NEAR(choice.mfu, model_flops / flops, 1e-9);
    EXPECT_EQ(choice.bound(), Bound::compute);
    EXPECT_FALSE(choice.limited_by_memory);
  }
  EXPECT_EQ(result.faster_without_limit(), nullptr);
}

// Two ranks and endless rates but the links': a data group sends half of the f32 gradients and half of the bf16
// parameters a step, S (4 + 2) / 2 bytes of S parameters, whatever the batch. A tensor group sends, of each token and block,
// 8 rows of d bf16 numbers half, and of the head and the embedding a few more: with few tokens less, with many more.
TEST(PlanSearch, WhereLinksBindTheBatchDecides) {
  PlanSearch search{.cluster = endless_cluster(), .gpus = 2, .available = no_limit};
  search.cluster.gpu.link_rate = 1e6;
  const auto best_with = [&](std::int64_t batch) {
    const Config config = config_of(batch);
    const SearchResult result = search_plans(config, search);
    const PlannedChoice best = result.fitting.front();
    EXPECT_EQ(best.bound(), Bound::communication);
    const double of_blocks = static_cast<double>(batch * 32) * 2 * 8 * 64 * 2 / 2 / 1e6;
    for (const PlannedChoice& choice : result.fitting) {
      SCOPED_TRACE(choice_text(choice));
      if (choice.data == 2) {  // whatever is computed again
        EXPECT_NEAR(choice.seconds, result.parameters * 3 / 1e6, 0.03 * choice.seconds);
      } else {
        EXPECT_GT(choice.seconds, of_blocks);
        // Where blocks are computed again, what their forward sends is sent again, half of of_blocks at most.
        EXPECT_LT(choice.seconds, (choice.recompute == Recompute::block ? 2 : 1.5) * of_blocks);
      }
    }
    return best;
  };
  EXPECT_EQ(best_with(24).tensor, 2);
  EXPECT_EQ(best_with(240).data, 2);
}

// A launch of 1 ms each and nothing else: what takes fewer ops is faster.
PlanSearch search_of_launches(std::size_t available) {
  PlanSearch search{.cluster = endless_cluster(), .gpus = 1, .available = available};
  search.cluster.attainment.op_seconds = 1e-3;
  return search;
}

TEST(PlanSearch, LaunchesPreferLargeMicroBatches) {
  const Config config = config_of(24);
  const SearchResult result = search_plans(config, search_of_launches(no_limit));
  EXPECT_THAT(micro_batches(result.fitting), ElementsAre(24, 12, 8, 6, 4, 3, 2, 1));
  EXPECT_EQ(result.fitting.front().recompute, Recompute::none);
  const StepPlan plan = plan_step(with(config, result.fitting.front()), {});
  std::int64_t calls = 0;
  for (const OpCount& op : plan.ops) calls += op.calls;
  EXPECT_NEAR(result.fitting.front().seconds, 1e-3 * static_cast<double>(calls), 1e-9);
  EXPECT_EQ(result.fitting.front().bound(), Bound::launches);
}

TEST(PlanSearch, WhatDoesNotFitIsNotRankedAndSaysWhatItWouldGain) {
  const Config config = config_of(24);
  Config eight = config;
  eight.train.micro_batch = 8;
  const std::size_t needed = plan_memory(eight, {}).total();
  const SearchResult result = search_plans(config, search_of_launches(needed));
  EXPECT_THAT(micro_batches(result.fitting), ElementsAre(8, 6, 4, 3, 2, 1));
  EXPECT_THAT(micro_batches(result.too_large), ElementsAre(12, 24));
  for (const PlannedChoice& choice : result.fitting) {
    // The others are slower for another reason.
    EXPECT_EQ(choice.limited_by_memory, &choice == &result.fitting.front());
    EXPECT_LE(choice.memory.total(), needed);
    EXPECT_EQ(choice.memory.bytes, plan_memory(with(config, choice), {}).bytes);
  }
  ASSERT_NE(result.faster_without_limit(), nullptr);
  EXPECT_EQ(result.faster_without_limit()->micro_batch, 24);
  const SearchResult less = search_plans(config, search_of_launches(needed - 1));
  EXPECT_THAT(micro_batches(less.fitting), ElementsAre(6, 4, 3, 2, 1));
  // 8 sequences fit still, where something is computed again.
  EXPECT_THAT(micro_batches(less.fitting, Recompute::cheap), ::testing::Contains(8));
}

// Bytes alone: a step reads the matrices once a micro-batch, and all else is the same.
TEST(PlanSearch, MemoryBandwidth) {
  PlanSearch search{.cluster = endless_cluster(), .gpus = 1, .available = no_limit};
  search.cluster.gpu.memory_rate = 1e9;
  const Config config = config_of(4);
  const SearchResult result = search_plans(config, search);
  EXPECT_THAT(micro_batches(result.fitting), ElementsAre(4, 2, 1));
  for (const PlannedChoice& choice : result.fitting) {
    double bytes = 0;
    for (const OpCount& op : plan_step(with(config, choice), {}).ops) bytes += op.bytes_read + op.bytes_written;
    EXPECT_NEAR(choice.seconds, bytes / 1e9, 1e-9 * choice.seconds);
    EXPECT_EQ(choice.bound(), Bound::memory_bandwidth);
  }
}

// 6 GPUs: 4 heads do not divide over 3 and 6 tensor ranks, 24 + 1 sequences over 2, 3 and 6 data ranks.
TEST(PlanSearch, RefusalsAreCountedByReason) {
  PlanSearch search{.cluster = endless_cluster(), .gpus = 6, .available = no_limit};
  const SearchResult result = search_plans(config_of(25), search);
  EXPECT_TRUE(result.fitting.empty() && result.too_large.empty());
  // 6x1 and 3x2 by the batch; 2x3: the heads come first; 1x6 has micro-batches of 1, 5 and 25. Each with 3 words of
  // train.recompute.
  ASSERT_EQ(result.choices(), 18);
  int by_heads = 0, by_batch = 0;
  for (const auto& [reason, count] : result.refused) {
    if (reason.find("model.n_heads = 4") != std::string::npos) by_heads += count;
    if (reason.find("train.global_batch = 25") != std::string::npos) by_batch += count;
  }
  EXPECT_EQ(by_heads, 12);
  EXPECT_EQ(by_batch, 6);
  const SearchReport report{.config = config_of(25), .search = search, .result = result, .notes = {}};
  EXPECT_THAT(report.nothing_fits(), HasSubstr("refused on every grid of 6 GPUs"));
}

TEST(PlanSearch, WhereNothingFitsTheNearestIsNamed) {
  const Config config = config_of(24);
  const PlanSearch search = search_of_launches(1000);
  SearchReport report{.config = config, .search = search, .result = search_plans(config, search), .notes = {}};
  EXPECT_THAT(report.nothing_fits(),
              HasSubstr("nothing fits: of 24 choices on 1 x test the nearest, 1x1, train.micro_batch = 1, "
                        "train.recompute = block"));
  EXPECT_THAT(report.nothing_fits(), HasSubstr("--gpus"));
  report.result = search_plans(config, search_of_launches(no_limit));
  EXPECT_EQ(report.nothing_fits(), "");
}

}  // namespace
}  // namespace vqlm
