// The same run on every process grid, and continued across grids.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>

#include "tests/train/bodies.h"
#include "tests/train/training_world.h"
#include "train/config/enum_words.h"

namespace vqlm {
namespace {

using testing::grids_of;
using testing::GridSize;
using testing::learning_by;
using testing::resumed_grids_of;
using testing::session;
using testing::set_groups;
using testing::tiny_config;
using testing::tiny_steps;
using testing::tiny_vocabulary;
using testing::train_run;
using testing::TrainedRun;
using testing::TrainingWorld;
using testing::with_body;

/// One head of the comparison.
struct HeadCase {
  const char* name;
  HeadKind kind;
  bool tied = false;
  int groups = 8;
  CodebookLearning learning = CodebookLearning::commitment;
  bool embedding = false;              // members are rows of the embedding
  bool means_and_input_codes = false;  // head.member_mean and head.input_codes
  std::int64_t vocabulary = tiny_vocabulary;
  std::int64_t steps = tiny_steps;
  OptimizerKind optimizer = OptimizerKind::adamw;
  const char* body = "llama";
  TableUpdate table_update = TableUpdate::dense;
  TableUpdate embedding_update = TableUpdate::dense;
  float softcap = 0;
  bool bias = true;  // of a VQ head's tokens
};
void PrintTo(const HeadCase& c, std::ostream* out) {
  *out << c.name;
}

class Training : public ::testing::TestWithParam<HeadCase> {
 protected:
  static Config config(const std::filesystem::path& shards, const std::filesystem::path& run) {
    Config config = tiny_config(GetParam().kind, shards, run);
    config.model.tie_embeddings = GetParam().tied;
    config.model = with_body(config.model, GetParam().body);
    config.optim.input_tables_update = GetParam().table_update;
    config.optim.embedding_update = GetParam().embedding_update;
    if (GetParam().embedding_update == TableUpdate::rows) config.optim.embedding.decay_ratio = 0;
    set_groups(config, GetParam().groups);
    if (auto* dense = std::get_if<DenseHeadConfig>(&config.head)) dense->softcap = GetParam().softcap;
    if (auto* vq = std::get_if<VqHeadConfig>(&config.head)) {
      vq->learning = learning_by(GetParam().learning);
      if (GetParam().embedding) vq->members = EmbeddingMembersConfig{.mean = GetParam().means_and_input_codes};
      vq->input_codes = GetParam().means_and_input_codes;
      vq->bias = GetParam().bias;
    }
    config.train.steps = GetParam().steps;
    config.optim.kind = GetParam().optimizer;
    if (GetParam().learning == CodebookLearning::ema) {
      config.train.check_replicas_every = 1;
    }
    return config;
  }
  Config config_of(const std::string& name) { return config(world_.shards, world_.shared_path(name)); }

  /// The whole run on one rank alone: the first; the others, which get nothing, leave it the processors.
  TrainedRun run_alone(const std::function<void(Trainer&)>& after_update = {}) {
    const auto barrier = [&] { world_.world.world().barrier(); };
    if (session().rank() > 0) {
      barrier();
      return {};
    }
    const TrainedRun run =
        train_run(*world_.backend, world_.alone,
                  config(world_.shards, std::filesystem::path(world_.folder.path()) / "alone"), false, 0, after_update);
    barrier();
    return run;
  }

  TrainingWorld world_{GetParam().vocabulary};
};

/// Gradients that nothing may read before it has written them. Those that a step leaves out of it, since they begin with a
/// product, are then found where anything adds to them: losses become NaN.
void poison_gradients(Trainer& trainer) {
  const Tensor gradients = trainer.model().parameters().flat_gradients();
  std::fill_n(gradients.f32(), gradients.numel(), std::nanf(""));
}

void expect_close(const std::vector<double>& actual, const std::vector<double>& expected, std::size_t first = 0) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = first; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-5 * expected[i]) << "value " << i + 1;
  }
}

std::string name_of(const ::testing::TestParamInfo<HeadCase>& test) {
  return test.param.name;
}

class EveryGrid : public Training {};

TEST_P(EveryGrid, LossesAgree) {
  if (session().size() == 1 && GetParam().vocabulary == tiny_vocabulary)
    GTEST_SKIP() << "a grid of one is the run alone";
  const TrainedRun expected = run_alone();
  if (session().rank() == 0) {
    EXPECT_EQ(expected.losses.size(), static_cast<std::size_t>(GetParam().steps));
    EXPECT_EQ(expected.heldout.size(), 1U);
    EXPECT_LT(expected.losses.back(), expected.losses.front());  // it trains
  }
  for (const GridSize size : grids_of(session().size())) {
    const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
    const std::string name = size.name();
    SCOPED_TRACE(name);
    const TrainedRun run = train_run(*world_.backend, grid, config_of(name), false, 0, poison_gradients);
    EXPECT_EQ(run.first_step, 0);
    if (session().rank() > 0) continue;
    expect_close(run.losses, expected.losses);
    expect_close(run.heldout, expected.heldout);
  }
}

// The two heads of every comparison in full: 20 steps over a large prime vocabulary.
INSTANTIATE_TEST_SUITE_P(
    Full, EveryGrid,
    ::testing::Values(HeadCase{.name = "dense", .kind = HeadKind::dense, .vocabulary = 16001, .steps = 20},
                      HeadCase{.name = "vq", .kind = HeadKind::vq, .vocabulary = 16001, .steps = 20}),
    name_of);

// Tied: the vocabulary itself is cut over the tensor ranks, unevenly. Without groups: db needs counts of clusters only.
INSTANTIATE_TEST_SUITE_P(
    Variants, EveryGrid,
    ::testing::Values(
        HeadCase{.name = "dense_tied", .kind = HeadKind::dense, .tied = true},
        HeadCase{.name = "capped", .kind = HeadKind::dense, .softcap = 8},
        HeadCase{.name = "capped_tied", .kind = HeadKind::dense, .tied = true, .softcap = 8},
        HeadCase{.name = "low_rank", .kind = HeadKind::low_rank},
        HeadCase{.name = "low_rank_tied", .kind = HeadKind::low_rank, .tied = true},
        HeadCase{.name = "adaptive", .kind = HeadKind::adaptive},
        HeadCase{.name = "adaptive_muon",
                 .kind = HeadKind::adaptive,
                 .optimizer = OptimizerKind::muon,
                 .embedding_update = TableUpdate::rows},
        HeadCase{.name = "vq_gradient", .kind = HeadKind::vq, .learning = CodebookLearning::gradient},
        HeadCase{.name = "vq_ema", .kind = HeadKind::vq, .learning = CodebookLearning::ema},
        HeadCase{.name = "vq_g0", .kind = HeadKind::vq, .groups = 0, .learning = CodebookLearning::gradient},
        HeadCase{
            .name = "muon_tied", .kind = HeadKind::dense, .tied = true, .steps = 20, .optimizer = OptimizerKind::muon},
        HeadCase{.name = "muon_vq", .kind = HeadKind::vq, .embedding = true, .optimizer = OptimizerKind::muon},
        HeadCase{.name = "qwen", .kind = HeadKind::dense, .body = "qwen"},
        HeadCase{.name = "olmo_muon", .kind = HeadKind::dense, .optimizer = OptimizerKind::muon, .body = "olmo"},
        HeadCase{.name = "gemma_tied", .kind = HeadKind::dense, .tied = true, .body = "gemma"},
        HeadCase{.name = "documents", .kind = HeadKind::dense, .body = "documents"},
        HeadCase{.name = "tables_by_rows",
                 .kind = HeadKind::vq,
                 .embedding = true,
                 .means_and_input_codes = true,
                 .body = "tables",
                 .table_update = TableUpdate::rows},
        HeadCase{.name = "tables_by_rows_tied",
                 .kind = HeadKind::dense,
                 .tied = true,
                 .optimizer = OptimizerKind::muon,
                 .body = "tables",
                 .table_update = TableUpdate::rows},
        HeadCase{.name = "embedding_by_rows", .kind = HeadKind::vq, .embedding_update = TableUpdate::rows},
        HeadCase{.name = "tables_tied", .kind = HeadKind::dense, .tied = true, .body = "tables"},
        HeadCase{.name = "tables_vq",
                 .kind = HeadKind::vq,
                 .embedding = true,
                 .means_and_input_codes = true,
                 .optimizer = OptimizerKind::muon,
                 .body = "tables"},
        HeadCase{.name = "smollm_vq", .kind = HeadKind::vq, .body = "smollm"},
        HeadCase{.name = "vq_embedding", .kind = HeadKind::vq, .embedding = true},
        HeadCase{.name = "vq_embedding_ema",
                 .kind = HeadKind::vq,
                 .learning = CodebookLearning::ema,
                 .embedding = true,
                 .bias = false},
        HeadCase{.name = "vq_embedding_mean", .kind = HeadKind::vq, .embedding = true, .means_and_input_codes = true}),
    name_of);

class Recomputed : public Training {};

TEST_P(Recomputed, ChangesNoBit) {
  for (const GridSize size : resumed_grids_of(session().size())) {
    const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
    const auto run = [&](Recompute recompute) {
      Config config = config_of(size.name() + "-" + std::string(word_of(recompute)));
      config.model.n_layers = 3;
      config.train.recompute = recompute;
      config.optim.warmup_steps = 1;  // of the few
      return train_run(*world_.backend, grid, config);
    };
    const TrainedRun expected = run(Recompute::none);
    for (const Recompute recompute : {Recompute::cheap, Recompute::block}) {
      SCOPED_TRACE(size.name() + " " + std::string(word_of(recompute)));
      const TrainedRun recomputed = run(recompute);
      EXPECT_EQ(recomputed.losses, expected.losses);
      EXPECT_EQ(recomputed.heldout, expected.heldout);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Heads, Recomputed,
    ::testing::Values(HeadCase{.name = "dense", .kind = HeadKind::dense, .steps = 3},
                      HeadCase{.name = "qwen", .kind = HeadKind::dense, .steps = 3, .body = "qwen"},
                      HeadCase{.name = "olmo", .kind = HeadKind::dense, .steps = 3, .body = "olmo"},
                      HeadCase{.name = "gemma", .kind = HeadKind::dense, .tied = true, .steps = 3, .body = "gemma"},
                      HeadCase{.name = "documents", .kind = HeadKind::dense, .steps = 3, .body = "documents"},
                      HeadCase{.name = "low_rank_tied", .kind = HeadKind::low_rank, .tied = true, .steps = 3},
                      HeadCase{.name = "vq_embedding_mean",
                               .kind = HeadKind::vq,
                               .embedding = true,
                               .means_and_input_codes = true,
                               .steps = 3}),
    name_of);

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
                      HeadCase{.name = "muon", .kind = HeadKind::dense, .optimizer = OptimizerKind::muon}),
    name_of);

}  // namespace
}  // namespace vqlm
