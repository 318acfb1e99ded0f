// A run of two sources: the same samples and losses on every grid and after every stop, and its losses by source add up.
#include <gtest/gtest.h>

#include "tests/train/training_world.h"

namespace vqlm {
namespace {

using testing::grids_of;
using testing::GridSize;
using testing::session;
using testing::tiny_config;
using testing::tiny_steps;
using testing::train_run;
using testing::TrainedRun;
using testing::TrainingWorld;

constexpr std::int64_t vocabulary = 997;

class MixedTraining : public ::testing::Test {
 protected:
  MixedTraining() : world_(vocabulary) {
    if (session().rank() == 0) testing::write_zipf_shards(world_.shards, "code", 40, vocabulary);
    world_.world.world().barrier();
  }

  Config config(const std::string& run) {
    Config config = tiny_config(HeadKind::vq, world_.shards, world_.shared_path(run));
    config.data.train.clear();
    config.data.mix = {{.name = "web", .train = (world_.shards / "train-*.h5").string(), .weight = 0.7},
                       {.name = "code", .train = (world_.shards / "code-*.h5").string(), .weight = 0.3},
                       {.name = "code", .weight = 0.6, .from_step = 6}};
    config.data.heldout.clear();
    config.data.heldout_sets = {{"first", (world_.shards / "heldout-00000.h5").string()},
                                {"second", (world_.shards / "heldout-00001.h5").string()}};
    return config;
  }

  /// The samples of all steps, with their sources, in the order of the ranks.
  std::function<void(Trainer&)> record(const ProcessGrid& grid) {
    return [this, &grid](Trainer& trainer) {
      std::vector<double> own;
      for (std::size_t i = 0; i < trainer.step_samples().size(); ++i)
        own.push_back(static_cast<double>(trainer.step_samples()[i]) + 1e6 * trainer.step_sources()[i]);
      std::vector<double> all(own.size() * static_cast<std::size_t>(grid.data_size()), 0.0);
      if (grid.tensor_rank() == 0)
        std::copy(own.begin(), own.end(), all.begin() + static_cast<std::ptrdiff_t>(own.size()) * grid.data_rank());
      sum_over(*world_.backend, grid.world(), all);
      samples_.push_back(all);
    };
  }

  TrainingWorld world_;
  std::vector<std::vector<double>> samples_;
};

void expect_sums(const TrainedRun& run) {
  std::int64_t steps = 0;
  for (const std::string& line : run.lines) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("heldout_loss")) {
      const auto& sets = json.at("heldout_by_set");
      const double tokens = sets.at("first").at("tokens").get<double>() + sets.at("second").at("tokens").get<double>();
      const double nll = sets.at("first").at("loss").get<double>() * sets.at("first").at("tokens").get<double>() +
                         sets.at("second").at("loss").get<double>() * sets.at("second").at("tokens").get<double>();
      EXPECT_EQ(json.at("heldout_tokens").get<double>(), tokens);
      EXPECT_NEAR(json.at("heldout_loss").get<double>(), nll / tokens, 1e-12);
      continue;
    }
    ++steps;
    // 12 samples a step. 0.7 : 0.3 gives code 3 or 4 of them; from step 6 on it is 0.7 : 0.6.
    const double web = json.at("loss_by_source").at("web"), code = json.at("loss_by_source").at("code");
    const double part = (json.at("loss").get<double>() - web) / (code - web) * 12;
    EXPECT_NEAR(part, std::round(part), 1e-3) << line;
    EXPECT_NEAR(part, steps < 6 ? 3.6 : 12 * 0.6 / 1.3, 2) << line;
    EXPECT_GT(json.at("epochs").at("code").get<double>(), 0);
  }
  EXPECT_EQ(steps, tiny_steps);
}

TEST_F(MixedTraining, EveryGridAndEveryStopIsTheSameRun) {
  const TrainedRun expected = train_run(
      *world_.backend, world_.alone,
      [&] {
        Config own = config("x");
        own.run.dir = std::string(world_.folder.path()) + "/alone";
        return own;
      }(),
      false, 0, record(world_.alone));
  const auto whole = std::exchange(samples_, {});
  expect_sums(expected);
  for (const GridSize size : grids_of(session().size())) {
    const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
    SCOPED_TRACE(size.name());
    train_run(*world_.backend, grid, config(size.name()), false, 4, record(grid));
    const TrainedRun run = train_run(*world_.backend, grid, config(size.name()), true, 0, record(grid));
    EXPECT_EQ(run.first_step, 4);
    EXPECT_EQ(std::exchange(samples_, {}), whole);
    if (session().rank() > 0) continue;
    expect_sums(run);
    ASSERT_EQ(run.losses.size(), expected.losses.size());
    for (std::size_t i = 0; i < run.losses.size(); ++i)
      EXPECT_NEAR(run.losses[i], expected.losses[i], 1e-5 * run.losses[i]);
    EXPECT_NEAR(run.heldout.back(), expected.heldout.back(), 1e-5 * expected.heldout.back());
  }
}

TEST_F(MixedTraining, OtherWeightsAtAResumeLeaveWhatWas) {
  train_run(*world_.backend, world_.world, config("changed"), false, 4, record(world_.world));
  Config other = config("changed");
  other.data.mix[1].weight = 2;
  other.data.mix.pop_back();
  train_run(*world_.backend, world_.world, other, true, 8, record(world_.world));
  // The user's own file once more: the history comes from the checkpoint.
  const TrainedRun run = train_run(*world_.backend, world_.world, other, true, 0, record(world_.world));
  EXPECT_EQ(run.first_step, 8);
  const auto changed = std::exchange(samples_, {});
  Config staged = config("staged");
  staged.data.mix[2].weight = 2;
  staged.data.mix[2].from_step = 5;
  train_run(*world_.backend, world_.world, staged, false, 0, record(world_.world));
  EXPECT_EQ(changed, samples_);
}

}  // namespace
}  // namespace vqlm
