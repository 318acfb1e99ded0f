// metrics.jsonl: what a line holds, and that a resumed run leaves one consistent history.
#include "train/records/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace vqlm {
namespace {

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() {
    folder_ = std::filesystem::path(testing::TempDir()) /
              (std::string("metrics_") + testing::UnitTest::GetInstance()->current_test_info()->name() +
               std::to_string(::getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    config_.run.dir = folder_.string();
    config_.train.steps = 10;
  }
  ~MetricsTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path path() const { return folder_ / "metrics.jsonl"; }

  std::vector<nlohmann::json> lines() const {
    std::vector<nlohmann::json> parsed;
    std::ifstream file(path());
    for (std::string line; std::getline(file, line);) parsed.push_back(nlohmann::json::parse(line));
    return parsed;
  }

  void train(std::int64_t done, std::int64_t steps, double loss) {
    Metrics metrics(config_, done, Terminal::no);
    for (std::int64_t step = done + 1; step <= steps; ++step) {
      StepMetrics line;
      line.step = step;
      line.tokens = 64 * step;
      line.loss = loss;
      metrics.add(line);
    }
  }

  std::filesystem::path folder_;
  Config config_;
};

TEST_F(MetricsTest, ALineHoldsEveryNumberOfTheStep) {
  Metrics(config_, 0, Terminal::no)
      .add(StepMetrics{.step = 3,
                       .tokens = 192,
                       .loss = 2.5,
                       .lr = 1e-3,
                       .grad_norm = 0.75,
                       .tokens_per_second = 1e5,
                       .seconds = 0.5,
                       .seconds_data = 0.125,
                       .seconds_head = 0.25,
                       .mfu = 0.5,
                       .commitment = 0.0625,
                       .memory_bytes = 1000});
  const auto all = lines();
  ASSERT_EQ(all.size(), 1u);
  const nlohmann::json expected = {{"step", 3},      {"tokens", 192},         {"loss", 2.5},
                                   {"lr", 1e-3},     {"grad_norm", 0.75},     {"tokens_per_second", 1e5},
                                   {"seconds", 0.5}, {"seconds_data", 0.125}, {"seconds_head", 0.25},
                                   {"mfu", 0.5},     {"memory_bytes", 1000},  {"commitment", 0.0625}};
  EXPECT_EQ(all[0], expected);
}

TEST_F(MetricsTest, HeldOutEvaluationsAreLinesOfTheirOwn) {
  {
    Metrics metrics(config_, 0, Terminal::no);
    metrics.add(HeldoutMetrics{5, 320, 0.0, 1.25, 1000, 2.0});
    metrics.add(HeldoutMetrics{.step = 6,
                               .tokens = 384,
                               .loss = 0.0,
                               .heldout_tokens = 1000,
                               .seconds = 2.0,
                               .cluster_loss = 1.5,
                               .member_loss = 2.5});
  }
  const auto all = lines();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].at("heldout_loss"), 0.0);
  EXPECT_EQ(all[0].at("heldout_perplexity"), 1.0);
  EXPECT_EQ(all[0].at("heldout_bits_per_byte"), 1.25);
  EXPECT_FALSE(all[1].contains("heldout_bits_per_byte"));
  EXPECT_FALSE(all[0].contains("heldout_cluster_loss"));
  EXPECT_EQ(all[1].at("heldout_cluster_loss"), 1.5);
  EXPECT_EQ(all[1].at("heldout_member_loss"), 2.5);
}

TEST_F(MetricsTest, EventsBeginWithTheConfiguration) {
  config_.model.d_model = 4321;
  train(0, 1, 2.0);
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    if (!entry.path().filename().string().starts_with("events.")) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    EXPECT_THAT(bytes, testing::HasSubstr("    d_model = 4321\n"));
    EXPECT_THAT(bytes, testing::HasSubstr("memory/peak_MiB"));
    return;
  }
  FAIL() << "no event file";
}

TEST_F(MetricsTest, TheLogTellsASmoothedLoss) {
  config_.run.log_every = 2;
  testing::internal::CaptureStdout();
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("out", std::make_shared<spdlog::sinks::stdout_sink_mt>()));
  {
    Metrics metrics(config_, 0, Terminal::no);
    for (std::int64_t number = 1; number <= 2; ++number) {
      StepMetrics step;
      step.step = number;
      step.loss = static_cast<double>(number);
      metrics.add(step);
    }
  }
  spdlog::set_default_logger(before);
  // Weights 49/50 and 1 of the two: 0.98 / 1.98 + 2 / 1.98.
  EXPECT_THAT(testing::internal::GetCapturedStdout(), testing::HasSubstr("step 2/10  loss 2.0000 (mean 1.5051)"));
}

TEST_F(MetricsTest, AResumeCutsTheStepsThatItRepeats) {
  train(0, 7, 2.0);
  train(4, 10, 1.0);  // the checkpoint was of step 4
  auto all = lines();
  ASSERT_EQ(all.size(), 11u);
  EXPECT_EQ(all[4].at("step"), 4);
  EXPECT_EQ(all[4].at("resumed"), true);
  EXPECT_EQ(all[4].at("steps_repeated"), 3);
  EXPECT_GE(all[4].at("seconds_between"), 0.0);
  all.erase(all.begin() + 4);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].at("step"), i + 1);
    EXPECT_EQ(all[i].at("loss"), i < 4 ? 2.0 : 1.0);
  }
}

// What a line that is cut now said of an earlier job stays lost.
TEST_F(MetricsTest, LostTimeAddsUpOverResumes) {
  train(0, 7, 2.0);
  train(4, 10, 1.0);
  std::optional<LostTime> lost = cut_metrics(path(), 2);
  ASSERT_TRUE(lost);
  EXPECT_EQ(lost->steps_repeated, 3 + 2 + 6);
  EXPECT_EQ(lines().size(), 2u);
  EXPECT_FALSE(cut_metrics(folder_ / "none.jsonl", 2)) << "of a file that is not there";
}

TEST_F(MetricsTest, ALineThatACrashCutIsDroppedAndAnotherBadLineIsNamed) {
  train(0, 3, 2.0);
  std::ofstream(path(), std::ios::app) << R"({"step": 4, "los)";
  cut_metrics(path(), 10);
  EXPECT_EQ(lines().size(), 3u);
  std::ofstream(path(), std::ios::app) << "garbage\n"
                                       << R"({"step": 4})" << '\n';
  try {
    cut_metrics(path(), 10);
    FAIL() << "accepted garbage";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("metrics.jsonl:4"));
  }
}

TEST_F(MetricsTest, AFullDiskIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  AppendFile file("/dev/full");
  EXPECT_THROW(file.append("x"), Error);
}

TEST(Progress, Durations) {
  EXPECT_EQ(duration_text(11.6), "12 s");
  EXPECT_EQ(duration_text(249), "4 min 09 s");
  EXPECT_EQ(duration_text(3 * 3600 + 5 * 60 + 10), "3 h 05 min");
}

}  // namespace
}  // namespace vqlm
