// Parameters gathered beside forward on a device back end: the same bits as in turn, with graphs and without, and though
// nothing but NaN stands where a rank's values are old.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/nccl/nccl_world.h"
#include "tests/train/stale_values.h"
#include "train/tools/bench/synthetic_training.h"
#include "train/tools/selftest/selftest_model.h"

namespace vqlm {
namespace {

using testing::own_device;
using testing::poison_stale_values;
using testing::session;

constexpr int steps = 3;  // directly, as what graphs record, and replayed

struct HeadCase {
  const char* name;
  HeadKind head;
  bool tied = false;
  bool embedding = false;  // members are rows of the embedding
  OptimizerKind optimizer = OptimizerKind::adamw;
};

Config config_of(const HeadCase& c, const ProcessGrid& grid, int micro_batches, bool overlap, bool graphs) {
  Config config = selftest_config(c.head, grid.data_size(), grid.tensor_size());
  config.model.tie_embeddings = c.tied;
  if (auto* vq = std::get_if<VqHeadConfig>(&config.head); vq != nullptr && c.embedding) {
    vq->members = EmbeddingMembersConfig{.mean = true};
    vq->input_codes = true;
  }
  config.optim.kind = c.optimizer;
  config.train.global_batch = micro_batches * grid.data_size();
  config.parallel.overlap = overlap;
  config.run.cuda_graphs = graphs;
  return config;
}

struct Observed {
  std::vector<double> losses;
  std::vector<std::uint64_t> states;  // of the master values that this rank owns
};

Observed train(Backend& backend, const ProcessGrid& grid, const Config& config) {
  SyntheticTraining training(backend, grid, config);
  const ParameterStore& store = training.model().parameters();
  Observed observed;
  for (int step = 0; step < steps; ++step) {
    training.draw_tokens(step);
    training.step();
    EXPECT_GT(poison_stale_values(backend, grid, store), 0);
    observed.losses.push_back(training.sums().nll);
    std::uint64_t state = 0;
    for (const ParameterBucket& bucket : store.buckets()) {
      const std::int64_t share = bucket.count / grid.data_size(), begin = bucket.begin + grid.data_rank() * share;
      state = 31 * state + backend.fingerprint(store.masters(begin, share));
    }
    observed.states.push_back(state);
  }
  return observed;
}

class DeviceGathers : public ::testing::TestWithParam<HeadCase> {};

TEST_P(DeviceGathers, BesideForwardAndInTurnAreTheSameBits) {
  const auto backend = make_cuda_backend(own_device());
  for (int tensor = 1; tensor < session().size(); ++tensor) {  // else no data rank has anything to tell another
    if (session().size() % tensor != 0) continue;
    const ProcessGrid grid(session(), *backend, 0, tensor, {.timeout_seconds = 60});
    for (const int micro_batches : {1, 2}) {
      SCOPED_TRACE(::testing::Message() << "data " << grid.data_size() << ", tensor " << tensor << ", micro-batches "
                                        << micro_batches);
      const auto run = [&](bool overlap, bool graphs) {
        return train(*backend, grid, config_of(GetParam(), grid, micro_batches, overlap, graphs));
      };
      const Observed in_turn = run(false, false);
      for (const double loss : in_turn.losses) EXPECT_TRUE(std::isfinite(loss));
      for (const bool graphs : {false, true}) {
        if (micro_batches == 1 && !graphs) continue;
        const Observed beside = run(true, graphs);
        EXPECT_EQ(beside.losses, in_turn.losses) << (graphs ? "by graphs" : "directly");
        EXPECT_EQ(beside.states, in_turn.states) << (graphs ? "by graphs" : "directly");
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, DeviceGathers,
                         ::testing::Values(HeadCase{.name = "dense", .head = HeadKind::dense},
                                           HeadCase{.name = "dense_tied_muon",
                                                    .head = HeadKind::dense,
                                                    .tied = true,
                                                    .optimizer = OptimizerKind::muon},
                                           HeadCase{.name = "vq_embedding", .head = HeadKind::vq, .embedding = true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace vqlm
