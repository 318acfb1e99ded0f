// The same run on every process grid.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/train/head_case.h"
#include "train/config/enum_words.h"

namespace vqlm {
namespace {

using testing::expect_close;
using testing::grids_of;
using testing::GridSize;
using testing::HeadCase;
using testing::name_of;
using testing::resumed_grids_of;
using testing::session;
using testing::tiny_vocabulary;
using testing::train_run;
using testing::TrainedRun;
using testing::Training;

/// Gradients that nothing may read before it has written them. Those that a step leaves out of it, since they begin with a
/// product, are then found where anything adds to them: losses become NaN.
void poison_gradients(Trainer& trainer) {
  const Tensor gradients = trainer.model().parameters().flat_gradients();
  std::fill_n(gradients.f32(), gradients.numel(), std::nanf(""));
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
    EXPECT_EQ(run.future.size(), static_cast<std::size_t>((GetParam().steps + 1) * GetParam().future));
    expect_close(run.future, expected.future);
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
        HeadCase{.name = "future_dense", .kind = HeadKind::dense, .future = 2},
        HeadCase{.name = "future_dense_tied",
                 .kind = HeadKind::dense,
                 .tied = true,
                 .optimizer = OptimizerKind::muon,
                 .future = 1},
        HeadCase{.name = "future_low_rank", .kind = HeadKind::low_rank, .future = 1},
        HeadCase{.name = "future_adaptive", .kind = HeadKind::adaptive, .future = 2},
        HeadCase{.name = "future_vq", .kind = HeadKind::vq, .learning = CodebookLearning::gradient, .future = 3},
        HeadCase{.name = "future_vq_embedding",
                 .kind = HeadKind::vq,
                 .learning = CodebookLearning::gradient,
                 .embedding = true,
                 .means_and_input_codes = true,
                 .body = "documents",
                 .future = 2},
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

class Gathered : public Training {};

// Buckets above and below the size from which on a thread brings them, micro-batches that wait and that need not, evaluations
// and comparisons of copies between two steps.
TEST_P(Gathered, BesideForwardAndInTurnAreTheSameBits) {
  for (const GridSize size : grids_of(session().size())) {
    if (size.data == 1) continue;
    const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
    for (const int micro_batches : {1, 2}) {
      SCOPED_TRACE(size.name() + ", micro-batches: " + std::to_string(micro_batches));
      const auto run = [&](bool overlap) {
        Config config =
            config_of(size.name() + "-" + std::to_string(micro_batches) + (overlap ? "-beside" : "-in-turn"));
        config.model.d_model = 256;
        config.model.d_ff = 512;
        config.train.micro_batch = 2;
        config.train.global_batch = 2 * size.data * micro_batches;
        config.train.eval_every = 2;
        config.train.check_replicas_every = 3;
        config.optim.warmup_steps = 1;
        config.parallel.overlap = overlap;
        return train_run(*world_.backend, grid, config);
      };
      const TrainedRun beside = run(true), in_turn = run(false);
      EXPECT_EQ(beside.losses, in_turn.losses);
      EXPECT_EQ(beside.heldout, in_turn.heldout);
      for (const double loss : beside.losses) EXPECT_TRUE(std::isfinite(loss));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Heads, Gathered,
    ::testing::Values(HeadCase{.name = "dense", .kind = HeadKind::dense, .steps = 5},
                      HeadCase{.name = "dense_tied_muon",
                               .kind = HeadKind::dense,
                               .tied = true,
                               .steps = 5,
                               .optimizer = OptimizerKind::muon},
                      HeadCase{.name = "vq_embedding_mean",
                               .kind = HeadKind::vq,
                               .embedding = true,
                               .means_and_input_codes = true,
                               .steps = 5,
                               .optimizer = OptimizerKind::muon,
                               .body = "tables"},
                      HeadCase{.name = "vq_ema_tables_by_rows",
                               .kind = HeadKind::vq,
                               .learning = CodebookLearning::ema,
                               .steps = 5,
                               .body = "tables",
                               .table_update = TableUpdate::rows},
                      HeadCase{.name = "low_rank_tied", .kind = HeadKind::low_rank, .tied = true, .steps = 5}),
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
                               .steps = 3},
                      HeadCase{.name = "future",
                               .kind = HeadKind::vq,
                               .learning = CodebookLearning::gradient,
                               .embedding = true,
                               .means_and_input_codes = true,
                               .steps = 3,
                               .future = 2}),
    name_of);

}  // namespace
}  // namespace vqlm
