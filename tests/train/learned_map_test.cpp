// head.map = "learned" in a run of one rank: what it writes, what its checkpoints hold, and what is refused.
#include "train/engine/learned_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "core/log.h"
#include "train/codes/code_map_file.h"
#include "tests/data/temporary_folder.h"
#include "tests/train/tiny_run.h"

namespace vqlm {
namespace {

using ::testing::HasSubstr;
using testing::tiny_config;
using testing::train_run;

Config learned_config() {
  Config config;
  config.head.kind = HeadKind::vq;
  config.head.map = "learned";
  return config;
}

std::string refusal(Config config) {
  try {
    resolve(config, 4096, 1);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(LearnedMapConfig, ATenthOfTheStepsBetweenReFitsUntilHalfOfThem) {
  Config config = learned_config();
  config.train.steps = 600;
  resolve(config, 4096, 1);
  EXPECT_EQ(config.head.refit_every, 60);
  EXPECT_EQ(config.head.refit_until, 300);
  resolve(config, 4096, 1);  // plans resolve again
  EXPECT_EQ(config.head.refit_every, 60);
  EXPECT_TRUE(refits_after(config, 300));
  EXPECT_FALSE(refits_after(config, 0));
  EXPECT_FALSE(refits_after(config, 299));
  EXPECT_FALSE(refits_after(config, 360));
  EXPECT_TRUE(in_refit_window(config, 300));
  EXPECT_FALSE(in_refit_window(config, 301));
  config.head.refit_until = 299;  // the last re-fit is after step 240
  EXPECT_TRUE(in_refit_window(config, 240));
  EXPECT_FALSE(in_refit_window(config, 241));
}

TEST(LearnedMapConfig, RefusesWhatCannotBe) {
  Config config = learned_config();
  config.train.steps = 100;
  config.optim.warmup_steps = 10;
  EXPECT_EQ(refusal(config), "");
  config.head.refit_until = 100;
  EXPECT_THAT(refusal(config), HasSubstr("head.refit_until = 100 of train.steps = 100"));
  config.head.refit_until = 20;
  config.head.refit_every = 30;
  EXPECT_THAT(refusal(config), HasSubstr("head.refit_every = 30 is beyond head.refit_until = 20"));
  config.head.refit_every = 20;
  EXPECT_EQ(refusal(config), "");
  config.head.map = "corpus";
  EXPECT_THAT(refusal(config), HasSubstr("only a learned map is re-fit"));
  config.head.map = "learned";
  config.head.kind = HeadKind::dense;
  EXPECT_THAT(refusal(config), HasSubstr("head.kind = \"dense\""));
}

class LearnedMapRun : public ::testing::Test {
 protected:
  LearnedMapRun() {
    log::set_level(log::level::warn);
    testing::write_zipf_shards(folder_.path(), "train", 60, 499);
    testing::write_zipf_shards(folder_.path(), "heldout", 4, 499);
  }
  Config config(const std::string& name) {
    Config config = tiny_config(HeadKind::vq, folder_.path(), std::filesystem::path(folder_.path()) / name);
    config.head.map = "learned";
    config.head.refit_every = 4;
    config.head.refit_until = 8;
    return config;
  }
  std::filesystem::path checkpoint(const Config& config) {
    return find_checkpoint(std::filesystem::path(config.run.dir));
  }

  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(1);
  ProcessGrid grid_{*backend_};
};

TEST_F(LearnedMapRun, EveryReFitIsALineOfTheMetrics) {
  const Config run = config("run");
  train_run(*backend_, grid_, run);
  std::ifstream file(std::filesystem::path(run.run.dir) / "metrics.jsonl");
  std::vector<std::int64_t> steps;
  double moved = 0;
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    if (!json.contains("refit_moved_tokens")) continue;
    steps.push_back(json.at("step").get<std::int64_t>());
    moved += json.at("refit_moved_tokens").get<double>();
    EXPECT_EQ(json.at("refit_rows").get<double>(),
              4 * 12 * 32);  // steps, sequences, tokens: nothing of the window before
    const double before = json.at("refit_loss_before").get<double>();
    EXPECT_NEAR(json.at("refit_loss_after").get<double>(), before, 0.05 * before);
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{4, 8}));
  EXPECT_GT(moved, 0);
}

TEST_F(LearnedMapRun, CheckpointsHoldTheMapInUseAndTheUnfinishedWindow) {
  const Config run = config("run");
  CodeMap in_use;
  train_run(*backend_, grid_, run, false, 6, [&](Trainer& trainer) { in_use = *trainer.map(); });
  const CheckpointReader middle(checkpoint(run), Verify::yes);
  EXPECT_EQ(middle.code_map()->cluster_of_token, in_use.cluster_of_token);
  EXPECT_EQ(middle.code_map()->member_codes, in_use.member_codes);
  EXPECT_THAT(middle.code_map()->provenance, HasSubstr("learned: hidden states of 1536 tokens up to step 4"));
  const std::string file = (std::filesystem::path(run.run.dir) / "code_map.h5").string();
  EXPECT_EQ(load_code_map(file).cluster_of_token, in_use.cluster_of_token);
  const ClassSums sums = middle.class_sums().value();
  EXPECT_EQ(std::accumulate(sums.counts.begin(), sums.counts.end(), std::int64_t{0}), 2 * 12 * 32);
  EXPECT_NE(sums.sums, std::vector<std::int64_t>(sums.sums.size(), 0));

  Config other = run;
  other.head.refit_dims = 16;
  try {
    train_run(*backend_, grid_, other, true);
    FAIL() << "went on with sums of another width";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("head.refit_dims = 16"));
  }
  train_run(*backend_, grid_, run, true);
  EXPECT_FALSE(CheckpointReader(checkpoint(run), Verify::yes).class_sums().has_value());
}

TEST_F(LearnedMapRun, AStepWithoutAFiniteGradientIsLeftOut) {
  const Config run = config("run");
  // The last norm's first gain is spoiled after step 1 and mended after step 2, whose update is skipped.
  train_run(*backend_, grid_, run, false, 3, [&](Trainer& trainer) {
    const ParameterStore& store = trainer.model().parameters();
    const auto gain = std::find_if(store.parameters().begin(), store.parameters().end(),
                                   [](const Parameter& p) { return p.name == "model.norm.weight"; });
    static float kept;
    float* const first = store.flat_values().f32() + gain->flat_begin;
    const std::int64_t step = trainer.state().step + 1;
    if (step == 1) kept = std::exchange(*first, std::nanf(""));
    if (step == 2) *first = kept;
  });
  const ClassSums sums = CheckpointReader(checkpoint(run), Verify::yes).class_sums().value();
  EXPECT_EQ(std::accumulate(sums.counts.begin(), sums.counts.end(), std::int64_t{0}), 2 * 12 * 32);
}

TEST_F(LearnedMapRun, WorksWithoutGroupsBiasesAndWithOwnTokens) {
  for (const int variant : {0, 1, 2}) {
    Config run = config("run-" + std::to_string(variant));
    if (variant == 0) run.head.groups = 0;
    if (variant == 1) run.head.bias = false;
    if (variant == 2) run.head.own_tokens = 10;
    CodeMap map;
    const auto trained =
        train_run(*backend_, grid_, run, false, 0, [&](Trainer& trainer) { map = *trainer.map(); });
    EXPECT_THAT(map.provenance, HasSubstr("learned"));
    map.validate("the test");
    for (const double loss : trained.losses) EXPECT_TRUE(std::isfinite(loss));
    if (variant < 2) continue;
    EXPECT_THAT(map.provenance, HasSubstr("the 10 most frequent tokens have clusters of their own"));
    const MemberOrder order(map.cluster_of_token, map.clusters);
    std::int64_t alone = 0;
    for (std::size_t k = 0; k < 61; ++k) alone += order.begin[k + 1] - order.begin[k] == 1 ? 1 : 0;
    EXPECT_EQ(alone, 10);
  }
}

}  // namespace
}  // namespace vqlm
