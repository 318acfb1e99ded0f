// A map that is learned on several ranks: the same map and codebooks everywhere, the same losses on every grid, and runs that go on
// in the middle of a window as if nothing had happened.
#include <gtest/gtest.h>

#include "tests/train/training_world.h"
#include "train/engine/head_access.h"

namespace vqlm {
namespace {

using testing::grids_of;
using testing::GridSize;
using testing::resumed_grids_of;
using testing::session;
using testing::tiny_config;
using testing::tiny_steps;
using testing::train_run;
using testing::TrainedRun;
using testing::TrainingWorld;

constexpr std::int64_t vocabulary = 499;

class LearnedMapRanks : public ::testing::Test {
 protected:
  /// Windows of steps 1 to 4 and 5 to 8.
  static Config config(const std::filesystem::path& shards, const std::filesystem::path& run) {
    Config config = tiny_config(HeadKind::vq, shards, run);
    config.head.map = "learned";
    config.head.learning = CodebookLearning::gradient;
    config.head.refit_every = 4;
    config.head.refit_until = 9;
    config.head.refit_dims = 32;
    return config;
  }
  Config config_of(const std::string& name) { return config(world_.shards, world_.shared_path(name)); }

  TrainedRun run_alone(const std::function<void(Trainer&)>& after_update = {}) {
    return train_run(*world_.backend, world_.alone,
                     config(world_.shards, std::filesystem::path(world_.folder.path()) / "alone"), false, 0,
                     after_update);
  }

  TrainingWorld world_{vocabulary};
};

/// The map in use after each update, before a re-fit that is due then: every token's cluster, then its codes.
std::function<void(Trainer&)> note_map(std::vector<std::vector<std::int32_t>>& maps) {
  return [&maps](Trainer& trainer) {
    std::vector<std::int32_t>& map = maps.emplace_back(trainer.map()->cluster_of_token);
    map.insert(map.end(), trainer.map()->member_codes.begin(), trainer.map()->member_codes.end());
  };
}

void expect_close(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], 1e-5 * expected[i]) << "value " << i + 1;
}

TEST_F(LearnedMapRanks, MapsAndLossesAreThoseOfOneRank) {
  std::vector<std::vector<std::int32_t>> expected_maps;
  const TrainedRun expected = run_alone(note_map(expected_maps));
  ASSERT_EQ(expected_maps.size(), static_cast<std::size_t>(tiny_steps));
  EXPECT_EQ(expected_maps[3], expected_maps[0]);
  EXPECT_NE(expected_maps[4], expected_maps[3]);  // the re-fit after step 4
  EXPECT_NE(expected_maps[8], expected_maps[7]);
  EXPECT_EQ(expected_maps[11], expected_maps[8]);  // none after refit_until
  for (const GridSize size : grids_of(session().size())) {
    const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
    SCOPED_TRACE(size.name());
    std::vector<std::vector<std::int32_t>> maps;
    std::vector<std::uint64_t> heads;
    const TrainedRun run =
        train_run(*world_.backend, grid, config_of(size.name()), false, 0, [&](Trainer& trainer) {
          note_map(maps)(trainer);
          heads.push_back(head_fingerprint(*world_.backend, trainer.model().parameters()));
        });
    EXPECT_EQ(maps, expected_maps);
    const std::vector<std::uint64_t> all = gather_from_all(*world_.backend, grid.world(), heads);
    for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], heads[i % heads.size()]);
    if (session().rank() > 0) continue;
    expect_close(run.losses, expected.losses);
    expect_close(run.heldout, expected.heldout);
  }
}

// Step 6 is in the middle of the second window; step 8 has just been re-fitted; step 10 is past the last one.
TEST_F(LearnedMapRanks, OnTheSameGridResumedIsBitIdentical) {
  for (const GridSize size : resumed_grids_of(session().size())) {
    const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
    const std::string name = size.name();
    SCOPED_TRACE(name);
    const TrainedRun whole = train_run(*world_.backend, grid, config_of(name + "-whole"));
    for (const std::int64_t stop_after : {6, 8, 10}) {
      const Config cut = config_of(name + "-cut-" + std::to_string(stop_after));
      train_run(*world_.backend, grid, cut, false, stop_after);
      const TrainedRun resumed = train_run(*world_.backend, grid, cut, true);
      EXPECT_EQ(resumed.first_step, stop_after);
      EXPECT_EQ(resumed.losses, whole.losses) << "stopped after step " << stop_after;
      EXPECT_EQ(resumed.heldout, whole.heldout) << "stopped after step " << stop_after;
    }
  }
}

TEST_F(LearnedMapRanks, OnAnotherGridAWindowGoesOn) {
  const TrainedRun expected = run_alone();
  const auto sizes = grids_of(session().size());
  const ProcessGrid first(session(), *world_.backend, sizes.front().data, sizes.front().tensor);
  const ProcessGrid second(session(), *world_.backend, sizes.back().data, sizes.back().tensor);
  train_run(*world_.backend, first, config_of("moving"), false, 6);
  const TrainedRun run = train_run(*world_.backend, second, config_of("moving"), true);
  if (session().rank() > 0) return;
  expect_close(run.losses, expected.losses);
  expect_close(run.heldout, expected.heldout);
}

}  // namespace
}  // namespace vqlm
