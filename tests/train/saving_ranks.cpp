// Saving and resuming when one rank has trouble: the same story on all.
#include <gmock/gmock.h>

#include "tests/data/test_shards.h"
#include "tests/train/training_world.h"

namespace vqlm {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::session;
using testing::tiny_config;
using testing::train_run;
using testing::TrainedRun;
using testing::TrainingWorld;

class OneRanksTrouble : public ::testing::Test {
 protected:
  OneRanksTrouble() { log::set_level(log::level::off); }
  ~OneRanksTrouble() override { log::set_level(log::level::warn); }

  Config config_of(const std::string& name) {
    Config config = tiny_config(HeadKind::vq, world_.shards, world_.shared_path(name));
    config.data.heldout.clear();
    config.train.steps = 8;
    config.checkpoint.every = 2;
    config.checkpoint.keep = 0;
    return config;
  }
  static fs::path checkpoints(const Config& config) { return fs::path(config.run.dir) / "checkpoints"; }
  static std::string last_rank() { return std::to_string(session().size() - 1); }
  static std::string last_rank_file() { return "rank-0000" + last_rank() + ".h5"; }
  /// A folder in the way of the last rank's file of the checkpoint of `step`.
  static std::function<void(Trainer&)> in_the_way(const Config& config, std::int64_t step) {
    return [=](Trainer& trainer) {
      if (trainer.state().step + 1 != step || session().rank() > 0) return;
      fs::create_directories(checkpoints(config) / ("step-0000000" + std::to_string(step) + ".partial") /
                             last_rank_file());
    };
  }
  static std::vector<std::int64_t> steps_saved(const Config& config) {
    std::vector<std::int64_t> steps;
    for (const auto& checkpoint : list_checkpoints(checkpoints(config))) steps.push_back(checkpoint.step);
    return steps;
  }

  TrainingWorld world_{211};
};

TEST_F(OneRanksTrouble, AFailedSaveIsSurvived) {
  const Config config = config_of("failed-save");
  train_run(*world_.backend, world_.world, config, false, 0, in_the_way(config, 4));
  EXPECT_THAT(steps_saved(config), ElementsAre(2, 6, 8));
  EXPECT_FALSE(fs::exists(checkpoints(config) / "step-00000004.partial"));
}

TEST_F(OneRanksTrouble, AFailedLastSaveEndsAllRanksWithItsWords) {
  const Config config = config_of("failed-last-save");
  EXPECT_THAT(message_of([&] { train_run(*world_.backend, world_.world, config, false, 0, in_the_way(config, 8)); }),
              AllOf(HasSubstr("rank " + last_rank() + ": "), HasSubstr(last_rank_file()), HasSubstr("the newest is "),
                    HasSubstr("step-00000006")));
  EXPECT_THAT(steps_saved(config), ElementsAre(2, 4, 6));
}

TEST_F(OneRanksTrouble, ADamagedCheckpointIsPassedOverByAll) {
  const Config config = config_of("fallback");
  const TrainedRun whole = train_run(*world_.backend, world_.world, config, false, 7);
  if (session().rank() == 0) {
    const fs::path newest = find_checkpoint(config.run.dir) / last_rank_file();
    fs::resize_file(newest, fs::file_size(newest) / 2);
  }
  world_.world.world().barrier();
  const TrainedRun run = train_run(*world_.backend, world_.world, config, true, 7);
  EXPECT_EQ(run.first_step, 6);
  EXPECT_EQ(run.losses, whole.losses);
}

}  // namespace
}  // namespace vqlm
