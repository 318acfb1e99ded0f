// What the tests of training on grids share: the cases, and how their runs are compared.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "tests/train/bodies.h"
#include "tests/train/training_world.h"

namespace vqlm::testing {

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
  int future = 0;    // heads for later tokens
};
inline void PrintTo(const HeadCase& c, std::ostream* out) {
  *out << c.name;
}

/// Runs of the case on any grid.
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
    set_future(config, GetParam().future);
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

inline void expect_close(const std::vector<double>& actual, const std::vector<double>& expected,
                         std::size_t first = 0) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = first; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 1e-5 * expected[i]) << "value " << i + 1;
  }
}

inline std::string name_of(const ::testing::TestParamInfo<HeadCase>& test) {
  return test.param.name;
}

}  // namespace vqlm::testing
