// A gradient that is not finite on one rank: all ranks skip the same update and stay the same.
#include <gmock/gmock.h>

#include <limits>
#include <utility>

#include "tests/train/forwarding_communicator.h"
#include "tests/train/training_world.h"

namespace vqlm {
namespace {

using testing::ForwardingCommunicator;
using testing::GridSize;
using testing::session;
using testing::tiny_config;
using testing::train_run;
using testing::TrainedRun;
using testing::TrainingWorld;
using testing::wrapped_grid;

constexpr std::int64_t vocabulary = 211, steps = 8, step_of_spike = 4;

/// What this rank does to its gradients, and when.
struct Spike {
  Tensor gradients;                  // the flat ones; absent until the trainer is known
  std::int64_t from = 0, count = 0;  // the bucket
  float value = 0;
  bool armed = false;
};

/// Forwards every call. While the spike is armed, the bucket that comes to be reduced gets the value as one of its elements
/// first: as if this rank's backward had computed it.
class SpikedCommunicator final : public ForwardingCommunicator {
 public:
  SpikedCommunicator(std::unique_ptr<Communicator> inner, Spike& spike)
      : ForwardingCommunicator(std::move(inner)), spike_(spike) {}
  Event all_reduce(Tensor x, Reduce op, Stream stream) override {
    strike(x);
    return ForwardingCommunicator::all_reduce(x, op, stream);
  }
  Event reduce_scatter(Tensor out, Tensor in, Reduce op, Stream stream) override {
    strike(in);
    return ForwardingCommunicator::reduce_scatter(out, in, op, stream);
  }

 private:
  void strike(Tensor x) {
    if (!spike_.armed || x.data() != spike_.gradients.range(spike_.from, 1).data() || x.numel() != spike_.count) return;
    x.f32()[spike_.count / 2] = spike_.value;
    spike_.armed = false;
  }

  Spike& spike_;
};

/// Where and what strikes.
struct Case {
  int rank;
  const char* bucket;
  float value;
};

class SpikesTest : public ::testing::TestWithParam<HeadKind> {
 protected:
  SpikesTest() { log::set_level(log::level::err); }  // a skipped update warns

  struct Observed {
    std::vector<double> losses;         // on the first rank
    std::vector<std::int64_t> skipped;  // steps whose update changed nothing on this rank
    std::vector<std::uint64_t> states;  // by step
  };

  Observed train(const GridSize& size, const Case& c) {
    Spike spike;
    const ProcessGrid grid = wrapped_grid<SpikedCommunicator>(size.tensor, spike);
    Config config = tiny_config(GetParam(), world_.shards, world_.shared_path(std::to_string(runs_++)));
    config.data.heldout.clear();
    if (auto* vq = std::get_if<VqHeadConfig>(&config.head)) vq->clusters = 7;
    config.train.steps = steps;
    config.train.check_replicas_every = 1;  // ends the run where copies differ
    Observed observed;
    const TrainedRun run = train_run(*world_.backend, grid, config, false, 0, [&](Trainer& trainer) {
      ParameterStore& store = trainer.model().parameters();
      const std::int64_t step = trainer.state().step + 1;
      if (c.rank == session().rank() && step + 1 == step_of_spike) spike = aimed(store, c);
      observed.states.push_back(state_of(trainer));
      if (step > 1 && observed.states[observed.states.size() - 2] == observed.states.back())
        observed.skipped.push_back(step);
    });
    EXPECT_FALSE(spike.armed) << "the bucket was not reduced";
    observed.losses = run.losses;
    if (session().rank() == 0) {
      for (std::size_t i = 0; i < run.lines.size(); ++i) {
        const bool skipped = i + 1 == step_of_spike;
        EXPECT_EQ(run.lines[i].find("\"skipped\":true") != std::string::npos, skipped) << run.lines[i];
      }
    }
    return observed;
  }

  static Spike aimed(ParameterStore& store, const Case& c) {
    for (const ParameterBucket& b : store.buckets()) {
      if (b.name == c.bucket) return {store.flat_gradients(), b.begin, b.count, c.value, true};
    }
    ADD_FAILURE() << "no bucket " << c.bucket;
    return {};
  }

  /// Of the parameters and moments that this rank owns.
  std::uint64_t state_of(Trainer& trainer) {
    Backend& backend = *world_.backend;
    std::uint64_t values = 0;
    for (const Optimizer::OwnedSlice& slice : trainer.optimizer().owned_slices()) {
      const ParameterStore& store = trainer.model().parameters();
      const Parameter& p = store.parameters()[static_cast<std::size_t>(slice.parameter)];
      values = 31 * values + backend.fingerprint(store.masters(p.flat_begin + slice.begin, slice.count));
    }
    return values + 3 * backend.fingerprint(trainer.optimizer().first_moment()) +
           5 * backend.fingerprint(trainer.optimizer().second_moment());
  }

  TrainingWorld world_{vocabulary, 40};
  int runs_ = 0;
};

/// 2 x 1 and 1 x 2, or 2 x 2.
std::vector<GridSize> grids() {
  switch (session().size()) {
    case 2:
      return {{2, 1}, {1, 2}};
    case 4:
      return {{2, 2}};
    default:
      return {};
  }
}

TEST_P(SpikesTest, OneRanksGradientThatIsNotFiniteSkipsTheStepOnAll) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const Case on_last{session().size() - 1, "layer 1", nan}, on_first{0, "replicated", -infinity};
  for (const GridSize& size : grids()) {
    SCOPED_TRACE(size.name());
    const Observed run = train(size, on_last), other = train(size, on_first);
    // On every rank that update, and no other, changed neither parameters nor moments ...
    EXPECT_EQ(run.skipped, (std::vector<std::int64_t>{step_of_spike}));
    EXPECT_EQ(other.skipped, run.skipped);
    // ... so the run is the same, bit for bit, wherever the spike was ...
    EXPECT_EQ(other.states, run.states);
    EXPECT_EQ(other.losses, run.losses);
    // ... and goes on; the losses are finite throughout, because only the gradient was struck.
    if (session().rank() > 0) continue;
    EXPECT_EQ(run.losses.size(), static_cast<std::size_t>(steps));
    for (const double loss : run.losses) EXPECT_TRUE(std::isfinite(loss));
    EXPECT_LT(run.losses.back(), run.losses.front());
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, SpikesTest, ::testing::Values(HeadKind::dense, HeadKind::vq),
                         [](const auto& test) { return test.param == HeadKind::vq ? "vq" : "dense"; });

}  // namespace
}  // namespace vqlm
