// The benchmarks of single ops. Nothing here asserts how long anything takes.
#include "train/tools/bench/op_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/cpu/cpu_backend.h"
#include "core/error.h"
#include "train/engine/lap_timer.h"
#include "train/tools/bench/attention_bench.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;

TEST(LapTimer, HasOneTimeForEachLap) {
  const auto backend = make_cpu_backend(1);
  LapTimer timer(*backend);
  EXPECT_TRUE(timer.seconds().empty());
  for (int i = 0; i < 4; ++i) timer.lap();
  EXPECT_EQ(timer.seconds().size(), 3u);
}

TEST(TimeCalls, CallsAsOftenAsItSays) {
  const auto backend = make_cpu_backend(1);
  int calls = 0;
  const CallTime time = time_calls(*backend, [&] { ++calls; }, 0.0, 5);
  EXPECT_EQ(time.calls, 1);
  // One call that warms up, three that find out how long one takes, five laps.
  EXPECT_EQ(calls, 1 + 3 + 5);
}

std::string refusal(const AttentionBenchOptions& options) {
  const auto backend = make_cpu_backend(1);
  try {
    run_attention_bench(*backend, options);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

AttentionBenchOptions tiny_attention() {
  AttentionBenchOptions options;
  options.seq_lens = {8, 3};
  options.head_dims = {4};
  options.width = 16;
  options.sharing = 2;
  options.tokens = 16;
  options.seconds = 0;
  return options;
}

TEST(AttentionBench, ReportsEveryShape) {
  const auto backend = make_cpu_backend(1);
  const AttentionBenchResult result = run_attention_bench(*backend, tiny_attention());
  const auto json = nlohmann::json::parse(to_json(result));
  EXPECT_EQ(json.at("dtype"), "f32");
  ASSERT_EQ(json.at("shapes").size(), 2u);
  const auto& shape = json.at("shapes")[1];
  EXPECT_EQ(shape.at("batch"), 5);  // 16 tokens are five sequences of 3
  EXPECT_EQ(shape.at("heads"), 4);
  EXPECT_EQ(shape.at("kv_heads"), 2);
  for (const char* part : {"forward", "backward"}) {
    EXPECT_GT(shape.at(part).at("flops_per_second").get<double>(), 0) << part;
    EXPECT_GT(shape.at(part).at("share_of_peak").get<double>(), 0) << part;
  }
  // 2 products x 2 operations x 5 sequences x 4 heads x 3^2 / 2 scores x 4 numbers.
  EXPECT_EQ(result.timings[1].forward_flops(), 2 * 2 * 5 * 4 * 4.5 * 4);
  EXPECT_THAT(to_text(result), HasSubstr("f32"));
}

TEST(AttentionBench, RefusesSizesWithTheWayOut) {
  AttentionBenchOptions options = tiny_attention();
  options.head_dims = {6};
  EXPECT_THAT(refusal(options), HasSubstr("--head-dim 6 for --width 16"));
  options = tiny_attention();
  options.sharing = 3;
  EXPECT_THAT(refusal(options), HasSubstr("--sharing 3 does not divide the 4 heads"));
  options = tiny_attention();
  options.tokens = 0;
  EXPECT_THAT(refusal(options), HasSubstr("--tokens 0"));
}

TEST(OpBench, ReportsEveryOpWithItsBytes) {
  const auto backend = make_cpu_backend(1);
  OpBenchOptions options;
  options.rows = 6;
  options.seq_len = 3;
  options.width = 8;
  options.head_dim = 4;
  options.d_ff = 5;
  options.vocab_size = 11;
  options.logit_rows = 2;
  options.numbers = 100;
  options.seconds = 0;
  const auto json = nlohmann::json::parse(to_json(run_op_bench(*backend, options)));
  EXPECT_GT(json.at("copy_bytes_per_second").get<double>(), 0);
  std::map<std::string, double> bytes;
  for (const auto& op : json.at("ops")) {
    bytes[op.at("name")] = op.at("bytes");
    EXPECT_GT(op.at("share_of_copy").get<double>(), 0) << op.at("name");
  }
  EXPECT_EQ(bytes.at("copy"), 2 * 4 * 100);
  EXPECT_EQ(bytes.at("adamw"), 7 * 4 * 100 + 8);  // and the norm
  EXPECT_EQ(bytes.at("rmsnorm_forward"), 2 * 4 * 48 + 4 * (6 + 8));
  EXPECT_EQ(bytes.at("rope_forward"), 2 * 4 * 2 * 48);  // queries and keys, read and written
  // Two sequences: qkv read, keys, values and out written, and two positions of the past read.
  EXPECT_EQ(bytes.at("attention_cached"), 4 * 2 * (3 * 8 + 3 * 8 + 2 * 2 * 8));
  EXPECT_EQ(bytes.at("swiglu_backward"), 5 * 4 * 30);
  EXPECT_EQ(bytes.at("silu_residual_backward"), 3 * 4 * 48);
  EXPECT_TRUE(bytes.contains("embedding_backward") && bytes.contains("softmax_gradient"));
  EXPECT_LT(bytes.at("softmax_cross_entropy"), bytes.at("softmax_gradient") + bytes.at("softmax_statistics"));
  options.head_dim = 3;
  EXPECT_THROW(run_op_bench(*backend, options), UsageError);
}

}  // namespace
}  // namespace vqlm
