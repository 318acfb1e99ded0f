// vqlm report: what is read from run folders, the table, and the picture's program.
#include "train/records/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <fstream>
#include <functional>

#include "core/error.h"
#include "train/codes/code_map_file.h"
#include "train/config/config.h"
#include "train/records/loss_plot.h"

namespace vqlm {
namespace {

using testing::HasSubstr;
using testing::Not;

class ReportTest : public testing::Test {
 protected:
  ReportTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                (std::string("report_") + testing::UnitTest::GetInstance()->current_test_info()->name() +
                 std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~ReportTest() override { std::filesystem::remove_all(folder_); }

  /// d = 8, V = 100, K = Q = 10: a dense head of 800 numbers and a VQ head of 160.
  std::filesystem::path write_run(const std::string& name, const std::string& kind, const std::string& evaluation) {
    const std::filesystem::path run = folder_ / name;
    std::filesystem::create_directories(run);
    Config config = load_config({}, {"model.d_model=8", "model.vocab_size=100", "model.n_layers=1", "model.n_heads=2",
                                     "model.n_kv_heads=2", "model.d_ff=16", "run.name=" + name});
    config.head = DenseHeadConfig{};
    if (kind == "vq")
      config.head = VqHeadConfig{.clusters = 10, .members = CodeMembersConfig{2, 10}, .input_codes = false};
    std::ofstream(run / "config.toml") << to_toml(config);
    std::ofstream metrics(run / "metrics.jsonl");
    for (int step = 1; step <= 5; ++step) {
      metrics << R"({"step": )" << step << R"(, "tokens": )" << step * 64 << R"(, "loss": )" << 5.0 - step
              << R"(, "tokens_per_second": )" << (step == 1 ? 1 : 1000 + step) << R"(, "seconds_head": 0.002})" << '\n';
    }
    metrics << R"({"step": 5, "tokens": 320, "heldout_loss": 0.0})" << '\n' << R"({"step": 6, "tok)";
    metrics.close();
    if (!evaluation.empty()) std::ofstream(run / "eval.json") << evaluation;
    return run;
  }

  std::filesystem::path folder_;
};

TEST_F(ReportTest, ReadsARunFolder) {
  const RunSummary vq = summarize_run(write_run("a", "vq", R"({"perplexity": 12.5, "bits_per_byte": 1.5})"));
  EXPECT_EQ(vq.head, "vq K=10 G=2 Q=10");
  EXPECT_EQ(vq.head_matrices, 10 * 8 + 10 * 8);
  EXPECT_EQ(vq.head_biases, 10 + 100);
  EXPECT_DOUBLE_EQ(vq.fraction_of_dense.value(), 160.0 / 800.0);
  EXPECT_EQ(vq.tokens_per_second, 1003.0);  // the median of 1, 1002, 1003, 1004, 1005
  EXPECT_EQ(vq.head_seconds, 0.002);
  EXPECT_EQ(vq.perplexity, 12.5);
  EXPECT_EQ(vq.bits_per_byte, 1.5);
  EXPECT_EQ(vq.train.size(), 5u);
  EXPECT_EQ(vq.heldout.size(), 1u);
}

TEST_F(ReportTest, TheEvaluationsHeadCountsWhereItIsThere) {
  const RunSummary run = summarize_run(
      write_run("a", "vq", R"({"perplexity": 2, "head": {"parameters": 5, "biases": 7, "fraction_of_dense": 0.25}})"));
  EXPECT_EQ(run.head_matrices, 5);
  EXPECT_EQ(run.head_biases, 7);
  EXPECT_EQ(run.fraction_of_dense, 0.25);
}

TEST_F(ReportTest, WithoutAnEvaluationTheLastHeldOutLossCounts) {
  EXPECT_EQ(summarize_run(write_run("a", "vq", "")).perplexity, 1.0);
}

TEST_F(ReportTest, TheTableComparesWithTheFirstDenseRun) {
  const std::vector<RunSummary> runs = {summarize_run(write_run("small", "vq", R"({"perplexity": 110})")),
                                        summarize_run(write_run("full", "dense", R"({"perplexity": 100})")),
                                        summarize_run(write_run(std::string(90, 'x'), "dense", ""))};
  EXPECT_EQ(runs[0].steps, 5);
  EXPECT_EQ(runs[0].tokens, 320);
  const std::string table = report_table(runs);
  EXPECT_THAT(table, HasSubstr("+10.0 %"));
  EXPECT_THAT(table, HasSubstr("vs full"));
  EXPECT_THAT(table, HasSubstr("20.00"));
  EXPECT_THAT(table, HasSubstr("2.0"));
  // Every line of a table is as wide as its rule, and none is wider than a terminal.
  std::istringstream lines(table);
  std::string first;
  std::getline(lines, first);
  EXPECT_EQ(first.size(), 120u) << first;
  for (std::string line; std::getline(lines, line) && !line.empty();) EXPECT_EQ(line.size(), first.size()) << line;
}

TEST_F(ReportTest, SaysHowMuchTextACodeMapSaw) {
  const std::filesystem::path run = write_run("saw", "vq", "");
  CodeMap map = make_random_map(100, 10, 2, 10, 1);
  save_code_map((run / "code_map.h5").string(), map);
  EXPECT_THAT(report_table({summarize_run(run)}), Not(HasSubstr("code map")));  // random: of no text
  map.counted_tokens = 49'152'000;  // three times 1000 steps of 32 samples of 512 tokens
  save_code_map((run / "code_map.h5").string(), map);
  EXPECT_THAT(report_table({summarize_run(run)}),
              HasSubstr("saw: its code map saw 49,152,000 tokens, 3 times the tokens that are trained on\n"));
  map.counted_tokens = 16'384'000;
  save_code_map((run / "code_map.h5").string(), map);
  EXPECT_THAT(report_table({summarize_run(run)}), HasSubstr("saw: its code map saw 16,384,000 tokens\n"));
}

TEST_F(ReportTest, SaysWhatContinuedRunsLost) {
  const std::filesystem::path run = write_run("often", "vq", "");
  std::ofstream(run / "metrics.jsonl") << R"({"step": 1, "tokens": 8, "loss": 2.0, "seconds": 30.0}
{"step": 1, "resumed": true, "steps_repeated": 2, "seconds_repeated": 4.0, "seconds_between": 5.0}
{"step": 1, "resumed": true, "steps_repeated": 0, "seconds_repeated": 0.0, "seconds_between": 1.0}
{"step": 2, "tokens": 16, "loss": 2.0, "seconds": 30.0}
)";
  EXPECT_THAT(report_table({summarize_run(run)}),
              HasSubstr("often: continued 2 times, 2 steps repeated in 4 s, 6 s between jobs; goodput 85.7 %\n"));
}

/// An eval.json with the losses of two documents of 10 tokens each.
std::string evaluation(double first, double second, const std::string& more = "") {
  return fmt::format(
      R"({{"perplexity": {}, "tokens": 20, "seq_len": 512, "data_fingerprint": "f", "tokenizer_sha256": "t",
    "complete": true, "document_losses": {{"tokens": [10, 10], "nll": [{}, {}]}}{}}})",
      std::exp((first + second) / 20), first, second, more);
}

TEST_F(ReportTest, DifferencesArePairedByDocuments) {
  const RunSummary dense = summarize_run(write_run("dense", "dense", evaluation(10, 60)));
  const RunSummary vq = summarize_run(write_run("vq", "vq", evaluation(9, 57)));
  const auto paired = paired_difference(vq, dense);
  ASSERT_TRUE(paired);
  // Differences -1 and -3 over 20 tokens: mean -0.2; residuals 1 and -1, so a deviation of sqrt(2 * 2 / 1) / 20 = 0.1.
  EXPECT_NEAR(paired->relative, std::expm1(-0.2), 1e-12);
  EXPECT_NEAR(paired->low, std::expm1(-0.2 - 0.196), 1e-12);
  EXPECT_NEAR(paired->high, std::expm1(-0.2 + 0.196), 1e-12);
  EXPECT_THAT(report_table({vq, dense}), HasSubstr("-18.1 % (-32.7 to -0.4)"));
  RunSummary other = vq;
  other.document_tokens = {11, 9};
  EXPECT_FALSE(paired_difference(other, dense));
}

TEST_F(ReportTest, MarksWhatCannotBeCompared) {
  const RunSummary dense = summarize_run(write_run("dense", "dense", evaluation(10, 60)));
  const auto table = [&](const std::function<void(RunSummary&)>& change) {
    RunSummary run = dense;
    run.name = "other";
    change(run);
    return report_table({dense, run});
  };
  EXPECT_THAT(table([](RunSummary& run) { run.tokenizer = "u"; }),
              HasSubstr("(a) not compared with dense: another tokenizer"));
  EXPECT_THAT(table([](RunSummary& run) { run.heldout_set = "g"; }), HasSubstr("another held-out text"));
  EXPECT_THAT(table([](RunSummary& run) { run.seq_len = 64; }), HasSubstr("samples of 64 tokens, not 512"));
  EXPECT_THAT(table([](RunSummary& run) { run.evaluated = 8; }), HasSubstr("8 tokens evaluated, not 20"));
  EXPECT_THAT(table([](RunSummary& run) { run.partial = true; }),
              HasSubstr("(a) the beginning of the held-out text only"));
  EXPECT_THAT(table([](RunSummary& run) { run.heldout_set.reset(); }), testing::Not(HasSubstr("(a)")));  // not known
}

TEST_F(ReportTest, ATiedHeadHasNoMatrixOfItsOwnAndNamesAreTold) {
  RunSummary run = summarize_run(write_run("dense", "dense", ""));
  EXPECT_EQ(run.seed, 1);
  EXPECT_GT(run.parameters.value(), 2 * 800);
  run.tied = true;
  const std::string table = report_table({run, run});
  EXPECT_THAT(table, HasSubstr("tied"));
  EXPECT_THAT(table, testing::Not(HasSubstr("100.00")));
  EXPECT_THAT(table, HasSubstr(folder_.string().substr(0, 10)));  // two of one name are told by their folders
}

TEST_F(ReportTest, BadFoldersAreNamed) {
  EXPECT_THROW(summarize_run(folder_ / "missing"), Error);
  const auto run = write_run("a", "vq", "not json");
  EXPECT_THROW(summarize_run(run), Error);
}

TEST_F(ReportTest, SmoothingKeepsConstantsAndIsUnbiasedAtTheStart) {
  const std::vector<LossPoint> smoothed = smooth({{1, 3}, {2, 3}, {3, 3}}, 10);
  for (const LossPoint& point : smoothed) EXPECT_DOUBLE_EQ(point.loss, 3);
  // window 2: weights 1/3 and 2/3 after two points
  EXPECT_DOUBLE_EQ(smooth({{1, 0}, {2, 3}}, 2)[1].loss, 2);
}

TEST_F(ReportTest, TheTimeToALossThatAllReached) {
  // Losses from 5 down by 0.01 or 0.02 a step, of 1 and 3 seconds; the slower learner ends at 4.01.
  const auto falling = [](const char* name, double slope, double seconds) {
    RunSummary run;
    run.name = name;
    run.folder = name;
    for (int step = 1; step <= 100; ++step) run.train.push_back({step * 64.0, 5.01 - slope * step, seconds * step});
    return run;
  };
  const std::vector<RunSummary> runs{falling("slow", 0.01, 1), falling("fast", 0.02, 3)};
  const auto time = time_to_loss(runs);
  ASSERT_TRUE(time);
  EXPECT_EQ(time->loss, smooth(runs[0].train, 50).back().loss);
  EXPECT_EQ(time->seconds[0], 100);
  EXPECT_LE(smooth(runs[1].train, 50)[static_cast<std::size_t>(time->seconds[1] / 3) - 1].loss, time->loss);
  EXPECT_GT(smooth(runs[1].train, 50)[static_cast<std::size_t>(time->seconds[1] / 3) - 2].loss, time->loss);
  EXPECT_THAT(report_table(runs), HasSubstr(fmt::format("s to loss {:.3f}", time->loss)));
  EXPECT_FALSE(time_to_loss({runs[0]}));
  RunSummary other = runs[1];
  other.vocab_size = 5;
  EXPECT_FALSE(time_to_loss({runs[0], other}));  // losses of other tokens
  other = runs[1];
  other.train.resize(49);
  EXPECT_FALSE(time_to_loss({runs[0], other}));  // too short to be smoothed
}

TEST_F(ReportTest, DrawsAPicture) {
  const std::vector<RunSummary> runs = {summarize_run(write_run("it's", "vq", ""))};
  const auto picture = folder_ / "loss curve.svg";
  draw_losses(runs, picture);
  std::ifstream file(picture);
  const std::string svg((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(svg, HasSubstr("</svg>"));
  EXPECT_THAT(svg, HasSubstr("tokens trained on"));
  EXPECT_FALSE(std::filesystem::exists(picture.string() + ".gnuplot"));
  EXPECT_THROW(draw_losses(runs, folder_ / "loss.pdf"), UsageError);
  EXPECT_THROW(draw_losses({}, picture), Error);
}

}  // namespace
}  // namespace vqlm
