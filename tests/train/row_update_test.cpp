// Tables at the input whose updates are of the rows that a step touches: those as a whole update makes them, no other row and no
// other moment changed.
#include "train/engine/row_update.h"

#include <gtest/gtest.h>

#include <set>

#include "core/ops/ngram_rows.h"
#include "tests/train/tiny_model.h"

namespace vqlm {
namespace {

using testing::bytes_of;
using testing::tiny_model_config;

constexpr std::int64_t table_rows = 37;

Config config_of(TableUpdate update) {
  Config config = tiny_model_config(HeadKind::vq);
  config.model.ngram_tables = {{.order = 2, .rows = table_rows}, {.order = 3, .rows = 5}};
  config.optim.input_tables_update = update;
  config.train.global_batch = 4;  // two micro-batches
  return config;
}

/// The embedding by rows, for a head that does not read it.
Config embedding_config(TableUpdate update) {
  Config config = tiny_model_config(HeadKind::vq);
  auto& head = std::get<VqHeadConfig>(config.head);
  if (head.by_embedding()) head.members = CodeMembersConfig{4, 7};
  config.optim.embedding.decay_ratio = 0;
  config.optim.embedding_update = update;
  config.train.global_batch = 4;
  return config;
}

class Trained {
 public:
  explicit Trained(const Config& config)
      : backend_(make_cpu_backend(1)), grid_(*backend_), config_(config), map_(make_random_map(61, 5, 4, 7, 5)) {
    config_.parallel.data = config_.parallel.tensor = 1;
    engine_ = std::make_unique<Engine>(*backend_, grid_, config_, &map_);
    engine_->model().initialize(3, std::vector<std::int64_t>(61, 1));
  }

  double step(int number) {
    tokens_ = {};
    for (std::int64_t micro = 0; micro < 2; ++micro) {
      Batch batch{std::vector<std::int32_t>(16), std::vector<std::int32_t>(16)};
      for (std::size_t i = 0; i < 16; ++i) {
        const auto draw = static_cast<std::uint64_t>(number * 1000 + micro * 100) + i;
        batch.tokens[i] = static_cast<std::int32_t>(rng_.below(draw, 61));
        batch.targets[i] = static_cast<std::int32_t>(rng_.below(draw + 50, 61));
      }
      tokens_.push_back(batch.tokens);
      engine_->micro_batches().set(micro, batch);
    }
    return engine_->step(number, 0.01f);
  }

  /// The rows of the first table that the last step asked for.
  std::set<std::int32_t> touched() const {
    std::set<std::int32_t> rows;
    for (const auto& batch : tokens_) {
      for (std::size_t i = 0; i < batch.size(); ++i)
        rows.insert(ngram_row_at(&batch[i], static_cast<std::int64_t>(i % 8) + 1, 2, 0, table_rows));
    }
    rows.erase(-1);
    return rows;
  }

  std::set<std::int32_t> tokens() const {
    std::set<std::int32_t> ids;
    for (const auto& batch : tokens_) ids.insert(batch.begin(), batch.end());
    return ids;
  }

  std::vector<float> table(const std::string& name = "model.ngram_tables.0.weight") const {
    const auto& all = engine_->parameters().parameters();
    for (std::size_t id = 0; id < all.size(); ++id) {
      if (all[id].name != name) continue;
      const Tensor value = engine_->parameters().value(static_cast<ParameterId>(id));
      return {value.f32(), value.f32() + value.numel()};
    }
    return {};
  }
  Engine& engine() { return *engine_; }

 private:
  std::unique_ptr<Backend> backend_;
  ProcessGrid grid_;
  Config config_;
  CodeMap map_;
  Philox rng_{1, "ids"};
  std::unique_ptr<Engine> engine_;
  std::vector<std::vector<std::int32_t>> tokens_;
};

constexpr const char* embedding = "model.embed_tokens.weight";

void expect_like(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-6 * std::abs(a[i]) + 1e-8) << i;
}

TEST(RowUpdate, TheFirstStepIsThatOfTheWholeUpdate) {
  Trained whole(config_of(TableUpdate::dense)), by_rows(config_of(TableUpdate::rows));
  ASSERT_EQ(bytes_of(whole.table()), bytes_of(by_rows.table()));
  // Moments are zero, and nothing decays: rows without a gradient stay.
  EXPECT_NEAR(whole.step(1), by_rows.step(1), 1e-6);  // the same squares, added in another order
  expect_like(whole.table(), by_rows.table());
}

TEST(RowUpdate, OfTheEmbeddingTheFirstStepIsThatOfTheWholeUpdate) {
  Trained whole(embedding_config(TableUpdate::dense)), by_rows(embedding_config(TableUpdate::rows));
  ASSERT_EQ(bytes_of(whole.table(embedding)), bytes_of(by_rows.table(embedding)));
  EXPECT_NEAR(whole.step(1), by_rows.step(1), 1e-6);
  expect_like(whole.table(embedding), by_rows.table(embedding));
}

/// Which of `rows` rows differ.
std::set<std::int32_t> changed_rows(const std::vector<float>& before, const std::vector<float>& after,
                                    std::int64_t rows) {
  std::set<std::int32_t> changed;
  const std::size_t width = before.size() / static_cast<std::size_t>(rows);
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] != after[i]) changed.insert(static_cast<std::int32_t>(i / width));
  }
  return changed;
}

TEST(RowUpdate, OnlyTouchedRowsChange) {
  Trained run(config_of(TableUpdate::rows));
  for (int number = 1; number <= 3; ++number) {
    const std::vector<float> before = run.table();
    run.step(number);
    ASSERT_LT(run.touched().size(), static_cast<std::size_t>(table_rows));
    EXPECT_EQ(changed_rows(before, run.table(), table_rows), run.touched()) << "step " << number;
  }
}

TEST(RowUpdate, OfTheEmbeddingOnlyRowsOfTheStepsTokensChange) {
  Trained run(embedding_config(TableUpdate::rows));
  for (int number = 1; number <= 3; ++number) {
    const std::vector<float> before = run.table(embedding);
    run.step(number);
    ASSERT_LT(run.tokens().size(), 61u);
    EXPECT_EQ(changed_rows(before, run.table(embedding), 61), run.tokens()) << "step " << number;
  }
}

TEST(RowUpdate, GradientsTakeMemoryForAStepsRowsAlone) {
  Config config = config_of(TableUpdate::rows);
  config.model.ngram_tables = {{.order = 2, .rows = 100'000}};
  Trained large(config);
  // 4 samples of 8 tokens, of 16 numbers.
  EXPECT_EQ(large.engine().model().row_tables()[0].step.all_gradients().numel(), 32 * 16);
  EXPECT_LT(large.engine().parameters().flat_gradients().numel(), 100'000);
}

}  // namespace
}  // namespace vqlm
