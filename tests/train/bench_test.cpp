// The benchmarks' machinery. Nothing here asserts how long anything takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "core/model/transformer.h"
#include "tests/train/head_config.h"
#include "train/engine/optimizer.h"
#include "train/tools/bench/step_bench.h"
#include "train/tools/bench/synthetic_tokens.h"
#include "train/tools/bench/timing_backend.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;
using testing::head_of;
using ::testing::IsSupersetOf;

Config tiny_config(HeadKind kind) {
  Config config;
  config.model.d_model = 16;
  config.model.n_layers = 2;
  config.model.n_heads = 2;
  config.head = head_of(kind, {.clusters = 5,
                               .members = CodeMembersConfig{.groups = 4, .codes = 3},
                               .input_codes = false,
                               .map = "random",
                               .learning = CommitmentLearningConfig{}});
  config.data.seq_len = 8;
  config.train.micro_batch = 2;
  config.train.global_batch = 2;
  config.optim.warmup_steps = 0;
  config.optim.schedule = ScheduleKind::constant;
  resolve(config, 37, 1);
  return config;
}

std::vector<float> host(Tensor x) {
  return {x.f32(), x.f32() + x.numel()};
}

/// Losses, log-probabilities and parameters of one training step through `backend`.
std::vector<std::vector<float>> step_results(Backend& backend, const Config& config) {
  const ProcessGrid grid(backend);
  const auto counts = synthetic_counts(TokenDistribution::zipf, config.model.vocab_size);
  const CodeMap map = make_random_map(config.model.vocab_size, 5, 4, 3, 3);
  const std::int64_t n = config.train.micro_batch * config.data.seq_len;
  Transformer model(
      backend, grid.tensor(),
      {.model = config.model, .head = config.head, .batch = {config.train.micro_batch, config.data.seq_len}},
      kind_of(config.head) == HeadKind::vq ? &map : nullptr);
  Optimizer optimizer(backend, grid, model.parameters(), config.optim, 1.0f);
  model.initialize(1, counts);
  const Buffer ids = backend.allocate(static_cast<std::size_t>(2 * n) * 4, MemoryUse::workspace);
  const Buffer losses = backend.allocate(static_cast<std::size_t>(2 * n) * 4, MemoryUse::workspace);
  const Buffer log_probs =
      backend.allocate(static_cast<std::size_t>(n * config.model.vocab_size) * 4, MemoryUse::workspace);
  const Tensor tokens = ids.view({2 * n}, DType::i32).range(0, n);
  const Tensor targets = ids.view({2 * n}, DType::i32).range(n, n);
  backend.copy_from_host(ids.view({2 * n}, DType::i32), draw_tokens(counts, 2 * n, 2, "test").data());
  model.parameters().begin_gradients();
  model.accumulate_gradients(losses.view({2 * n}).range(0, n), losses.view({2 * n}).range(n, n), tokens, targets, 0.5f,
                             [&](int bucket) { optimizer.bucket_ready(bucket); });
  optimizer.finish_reductions();
  optimizer.step(1, 1e-2f);
  const Tensor all_log_probs = log_probs.view({n, config.model.vocab_size});
  model.log_probs(all_log_probs, tokens);
  return {host(losses.view({2 * n})), host(all_log_probs), host(model.parameters().flat_gradients()),
          host(model.parameters().flat_values())};
}

std::set<std::string> names_of(const std::vector<OpTime>& times) {
  std::set<std::string> names;
  for (const OpTime& time : times) names.insert(std::string(time.name));
  return names;
}

class Timing : public ::testing::TestWithParam<HeadKind> {};

TEST_P(Timing, ChangesNoResult) {
  const auto backend = make_cpu_backend(1);
  const Config config = tiny_config(GetParam());
  const auto plain = step_results(*backend, config);
  TimingBackend timing(*backend);
  timing.start();
  const auto timed = step_results(timing, config);
  EXPECT_EQ(plain, timed);
  double total = 0;
  for (const OpTime& op : timing.times()) {
    EXPECT_GT(op.calls, 0) << op.name;
    EXPECT_GE(op.seconds, 0) << op.name;
    total += op.seconds;
  }
  EXPECT_GT(total, 0);
  EXPECT_THAT(
      names_of(timing.times()),
      IsSupersetOf({"attention_forward", "attention_backward", "rope_forward", "rope_backward", "swiglu_forward",
                    "swiglu_backward", "rmsnorm_forward", "rmsnorm_backward", "embedding_forward", "embedding_backward",
                    "log_softmax", "adamw", "add_sum_of_squares", "fill", "copy_from_host", "copy_to_host",
                    "matmul a b^T (y)", "matmul a b (dx)", "matmul a^T b (dW)"}));
  if (GetParam() == HeadKind::vq) {
    EXPECT_THAT(names_of(timing.times()),
                IsSupersetOf({"softmax_statistics", "softmax_combine", "softmax_gradient", "add_column_sums",
                              "sort_rows_by_cluster", "member_entropy", "member_log_probs", "commitment"}));
  } else {
    EXPECT_TRUE(names_of(timing.times()).contains("softmax_cross_entropy"));
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, Timing, ::testing::Values(HeadKind::dense, HeadKind::vq),
                         [](const auto& kind) { return kind.param == HeadKind::dense ? "dense" : "vq"; });

TEST(TimingBackend, ForwardsWhatATrainingStepOnOneRankDoesNotCall) {
  const auto backend = make_cpu_backend(1);
  TimingBackend timing(*backend);
  timing.start();
  const Buffer storage = timing.allocate(12 * sizeof(float), MemoryUse::workspace);
  const Tensor x = storage.view({12}).range(0, 6), y = storage.view({12}).range(6, 6);
  for (int i = 0; i < 6; ++i) x.f32()[i] = static_cast<float>(i);
  timing.run(SwapAxes{.dst = y.view({3, 2, 1}), .src = x.view({2, 3, 1})});
  EXPECT_EQ(host(y), (std::vector<float>{0, 3, 1, 4, 2, 5}));
  timing.run(AddColumnSums{.out = y, .x = x.view({1, 6})});
  EXPECT_EQ(host(y), (std::vector<float>{0, 4, 3, 7, 6, 10}));
  timing.copy(y, x);
  EXPECT_EQ(host(y), host(x));
  EXPECT_EQ(names_of(timing.times()), (std::set<std::string>{"swap_axes", "add_column_sums", "copy"}));
}

TEST(TimingBackend, MeasuresOnlyWhileRunningAndCountsProducts) {
  const auto backend = make_cpu_backend(1);
  TimingBackend timing(*backend);
  const Buffer storage = timing.allocate(64 * sizeof(float), MemoryUse::workspace);
  EXPECT_EQ(timing.memory().in_use, backend->memory().in_use);
  const Tensor c = storage.view({64}).range(0, 6).view({2, 3});
  const Tensor a = storage.view({64}).range(6, 8).view({2, 4}), b = storage.view({64}).range(14, 12).view({3, 4});
  const auto multiply = [&] {
    timing.run(Matmul{.c = c, .a = a, .b = b, .tb = Transpose::yes, .accumulate = Accumulate::no});
  };
  timing.fill(storage.view({64}), 1.0f);
  multiply();
  EXPECT_TRUE(timing.times().empty());
  timing.start();
  multiply();
  multiply();
  timing.stop();
  multiply();
  ASSERT_EQ(timing.times().size(), 1u);
  EXPECT_EQ(timing.times()[0].calls, 2);
  EXPECT_EQ(timing.times()[0].flops, 2 * 2.0 * 2 * 3 * 4);
  EXPECT_EQ(host(c), std::vector<float>(6, 4.0f));
}

TEST(TimingBackend, MeasuresReplaysAsOneOpAndNotWhatIsRecorded) {
  const auto backend = make_cpu_backend(1);
  TimingBackend timing(*backend);
  const Buffer storage = timing.allocate(4 * sizeof(float), MemoryUse::workspace);
  const Tensor y = storage.view({4}).range(0, 2), x = storage.view({4}).range(2, 2);
  timing.fill(storage.view({4}), 1.0f);
  timing.start();
  const Graph graph = timing.capture([&] { backend->run(AddColumnSums{.out = y, .x = x.view({1, 2})}); });
  EXPECT_TRUE(timing.times().empty());
  timing.replay(graph);
  timing.replay(graph);
  ASSERT_EQ(timing.times().size(), 1u);
  EXPECT_EQ(timing.times()[0].name, "replay");
  EXPECT_EQ(timing.times()[0].calls, 2);
  EXPECT_EQ(host(y), std::vector<float>(2, 3.0f));
}

TEST(StepBench, ReportsItsKeys) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  const Config config = tiny_config(HeadKind::vq);
  const StepBenchResult result = run_step_bench(*backend, grid, config, {.warmup = 0, .steps = 2, .profiled = 1});
  const auto json = nlohmann::json::parse(to_json(result));
  for (const char* key : {"tokens_per_second", "seconds_per_step", "seconds_per_step_min", "seconds_head", "mfu",
                          "flops_per_token", "parameters", "matmul_peak_flops"}) {
    EXPECT_GT(json.at(key).get<double>(), 0) << key;
  }
  EXPECT_EQ(json.at("tokens_per_step"), 16);
  double share = 0;
  EXPECT_EQ(json.at("dtype"), "f32");
  EXPECT_EQ(json.at("clock"), "wall");
  EXPECT_EQ(json.at("graphs"), false);  // a device's
  EXPECT_EQ(json.at("shape").at("head"), "vq");
  EXPECT_EQ(json.at("shape").at("micro_batches"), 1);
  // Untrained: near the entropy of the Zipf distribution, below a uniform guess over 37 tokens.
  EXPECT_GT(json.at("mean_nll").get<double>(), 0);
  EXPECT_LT(json.at("mean_nll").get<double>(), std::log(37.0) + 0.1);
  for (const auto& op : json.at("ops")) share += op.at("share").get<double>();
  EXPECT_GT(share, 0);
  EXPECT_LE(share, 1);
  for (const char* use : {"parameters", "gradients", "optimizer", "activations", "workspace"}) {
    EXPECT_GT(json.at("memory_bytes").at(use).get<double>(), 0) << use;
  }
  EXPECT_THAT(to_text(result), HasSubstr("attention_backward"));
}

TEST(StepBench, RefusesToTimeNothing) {
  const auto backend = make_cpu_backend(1);
  const ProcessGrid grid(*backend);
  EXPECT_THROW(run_step_bench(*backend, grid, tiny_config(HeadKind::dense), {.steps = 0}), UsageError);
}

TEST(SyntheticTokens, FollowTheirCounts) {
  const auto counts = synthetic_counts(TokenDistribution::zipf, 50);
  EXPECT_TRUE(std::is_sorted(counts.rbegin(), counts.rend()));
  const std::int64_t draws = 100000;
  const auto tokens = draw_tokens(counts, draws, 7, "test");
  EXPECT_EQ(tokens, draw_tokens(counts, draws, 7, "test"));
  std::vector<double> seen(counts.size(), 0);
  for (std::int32_t token : tokens) ++seen.at(static_cast<std::size_t>(token));
  const double total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  for (std::size_t token = 0; token < counts.size(); ++token) {
    const double p = static_cast<double>(counts[token]) / total;
    // Five standard deviations of a binomial.
    EXPECT_NEAR(seen[token], draws * p, 5 * std::sqrt(draws * p * (1 - p))) << token;
  }
  EXPECT_EQ(synthetic_counts(TokenDistribution::uniform, 3), std::vector<std::int64_t>(3, 1));
}

}  // namespace
}  // namespace vqlm
