// A run continued on its process grid, and on another one.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/train/head_case.h"

namespace vqlm {
namespace {

using testing::expect_close;
using testing::grids_of;
using testing::GridSize;
using testing::HeadCase;
using testing::name_of;
using testing::resumed_grids_of;
using testing::session;
using testing::tiny_steps;
using testing::train_run;
using testing::TrainedRun;
using testing::Training;

/// The samples of each step in their order over all ranks, seen from a run's after_update.
class SampleRecord {
 public:
  explicit SampleRecord(Backend& backend) : backend_(backend) {}

  std::function<void(Trainer&)> of(const ProcessGrid& grid) {
    return [this, &grid](Trainer& trainer) {
      const std::vector<std::int64_t>& own = trainer.step_samples();
      std::vector<double> all(own.size() * static_cast<std::size_t>(grid.data_size()), 0.0);
      const auto first = static_cast<std::ptrdiff_t>(own.size()) * grid.data_rank();
      if (grid.tensor_rank() == 0) std::copy(own.begin(), own.end(), all.begin() + first);
      sum_over(backend_, grid.world(), all);
      steps.push_back(all);
    };
  }

  std::vector<std::vector<double>> steps;

 private:
  Backend& backend_;
};

class Resumed : public Training {
 protected:
  /// Trains until step `stop_after` on the first grid and then on from there on the second; asserts that it did.
  TrainedRun run_in_two_parts(const ProcessGrid& first, const ProcessGrid& second, const Config& config,
                              std::int64_t stop_after, SampleRecord& samples) {
    const TrainedRun begun = train_run(*world_.backend, first, config, false, stop_after, samples.of(first));
    const TrainedRun run = train_run(*world_.backend, second, config, true, 0, samples.of(second));
    EXPECT_EQ(begun.first_step, 0);
    EXPECT_EQ(run.first_step, stop_after);
    if (session().rank() > 0) return run;
    // The first part's lines stay as they are: nothing was trained twice.
    EXPECT_EQ(begun.lines.size(), static_cast<std::size_t>(stop_after));
    EXPECT_GE(run.lines.size(), begun.lines.size());
    EXPECT_TRUE(std::equal(begun.lines.begin(), begun.lines.end(), run.lines.begin()));
    return run;
  }
};

TEST_P(Resumed, OnTheSameGridIsBitIdentical) {
  for (const GridSize size : resumed_grids_of(session().size())) {
    const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
    const std::string name = size.name();
    SCOPED_TRACE(name);
    const TrainedRun whole = train_run(*world_.backend, grid, config_of(name + "-whole"));
    SampleRecord samples(*world_.backend);
    const TrainedRun resumed = run_in_two_parts(grid, grid, config_of(name + "-cut"), 7, samples);
    EXPECT_EQ(resumed.losses, whole.losses);
    EXPECT_EQ(resumed.heldout, whole.heldout);
    EXPECT_EQ(resumed.future, whole.future);
  }
}

TEST_P(Resumed, OnAnotherGridContinues) {
  SampleRecord expected_samples(*world_.backend), samples(*world_.backend);
  const TrainedRun expected = run_alone(expected_samples.of(world_.alone));
  const auto sizes = grids_of(session().size());
  const ProcessGrid first(session(), *world_.backend, sizes.front().data, sizes.front().tensor);
  const ProcessGrid second(session(), *world_.backend, sizes.back().data, sizes.back().tensor);
  const TrainedRun run = run_in_two_parts(first, second, config_of("moving"), 9, samples);
  // Every step trains on the very samples of the uninterrupted run, in their order.
  EXPECT_EQ(samples.steps.size(), static_cast<std::size_t>(tiny_steps));
  if (session().rank() > 0) return;
  EXPECT_EQ(samples.steps, expected_samples.steps);
  expect_close(run.losses, expected.losses, 9);
  expect_close(run.heldout, expected.heldout);
  expect_close(run.future, expected.future, static_cast<std::size_t>(9 * GetParam().future));
}

INSTANTIATE_TEST_SUITE_P(
    Heads, Resumed,
    ::testing::Values(HeadCase{.name = "dense", .kind = HeadKind::dense}, HeadCase{.name = "vq", .kind = HeadKind::vq},
                      HeadCase{.name = "low_rank", .kind = HeadKind::low_rank},
                      HeadCase{.name = "adaptive", .kind = HeadKind::adaptive},
                      HeadCase{.name = "low_rank_tied", .kind = HeadKind::low_rank, .tied = true},
                      HeadCase{.name = "vq_ema", .kind = HeadKind::vq, .learning = CodebookLearning::ema},
                      HeadCase{.name = "capped", .kind = HeadKind::dense, .softcap = 8},
                      HeadCase{.name = "vq_embedding", .kind = HeadKind::vq, .embedding = true},
                      HeadCase{.name = "qwen", .kind = HeadKind::dense, .body = "qwen"},
                      HeadCase{.name = "olmo", .kind = HeadKind::vq, .body = "olmo"},
                      HeadCase{.name = "gemma", .kind = HeadKind::dense, .tied = true, .body = "gemma"},
                      HeadCase{.name = "tables", .kind = HeadKind::vq, .body = "tables"},
                      HeadCase{.name = "tables_by_rows",
                               .kind = HeadKind::vq,
                               .optimizer = OptimizerKind::muon,
                               .body = "tables",
                               .table_update = TableUpdate::rows},
                      HeadCase{.name = "embedding_by_rows",
                               .kind = HeadKind::dense,
                               .optimizer = OptimizerKind::muon,
                               .body = "tables",
                               .table_update = TableUpdate::rows,
                               .embedding_update = TableUpdate::rows},
                      HeadCase{.name = "future",
                               .kind = HeadKind::vq,
                               .learning = CodebookLearning::gradient,
                               .embedding = true,
                               .means_and_input_codes = true,
                               .future = 2},
                      HeadCase{.name = "muon", .kind = HeadKind::dense, .optimizer = OptimizerKind::muon}),
    name_of);

}  // namespace
}  // namespace vqlm
