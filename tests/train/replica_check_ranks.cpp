// Ranks that hold copies of parameters compare them: a flipped bit is found on all ranks, with the right name.
#include <gmock/gmock.h>
#include <spdlog/fmt/fmt.h>

#include <cstdint>

#include "tests/train/training_world.h"
#include "train/engine/replica_check.h"

namespace vqlm {
namespace {

using ::testing::AllOf;
using testing::grids_of;
using testing::GridSize;
using ::testing::HasSubstr;
using testing::session;
using testing::tiny_config;
using testing::train_run;
using testing::TrainingWorld;

/// Flips the lowest bit of one float in the bucket.
void flip(ParameterStore& store, const std::string& bucket) {
  for (const ParameterBucket& b : store.buckets()) {
    if (b.name != bucket) continue;
    auto* const byte = static_cast<std::uint8_t*>(store.masters(b.begin + b.count / 3, 1).data());
    *byte = static_cast<std::uint8_t>(*byte ^ 1u);
    return;
  }
  ADD_FAILURE() << "no bucket " << bucket;
}

std::string error_of(const ReplicaCheck& check) {
  try {
    check.run(7);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class ReplicaCheckTest : public ::testing::TestWithParam<HeadKind> {};

TEST_P(ReplicaCheckTest, FlippedBitIsFoundOnAllRanksAndNamed) {
  const auto backend = make_cpu_backend(1);
  Config config = tiny_config(GetParam(), "", "");
  config.model.vocab_size = 211;
  if (auto* vq = std::get_if<VqHeadConfig>(&config.head)) vq->clusters = 7;
  const CodeMap map = make_random_map(211, 7, 8, 32, 5);
  const int ranks = session().size(), victim = ranks - 1;
  for (const GridSize& size : grids_of(ranks)) {
    const ProcessGrid grid(session(), *backend, size.data, size.tensor);
    Transformer model(*backend, grid.tensor(),
                      {.model = config.model,
                       .head = config.head,
                       .batch = {1, 8},
                       .share = {.size = size.data, .rank = grid.data_rank()}},
                      &map);
    model.initialize(3, std::vector<std::int64_t>(211, 1));
    const ReplicaCheck check(*backend, grid, model.parameters());
    for (const std::string bucket : {"layer 1", "replicated"}) {
      SCOPED_TRACE(size.name() + ", " + bucket);
      EXPECT_EQ(error_of(check), "");
      if (session().rank() == victim) flip(model.parameters(), bucket);
      const std::string error = error_of(check);
      if (session().rank() == victim) flip(model.parameters(), bucket);  // back again
      const bool everywhere = bucket == "replicated";
      const int copies = everywhere ? ranks : size.data;
      if (copies == 1) {
        EXPECT_EQ(error, "");
        continue;
      }
      EXPECT_THAT(error, AllOf(HasSubstr("step 7: copies of the parameters differ"), HasSubstr(" in " + bucket + ";"),
                               HasSubstr("--resume")));
      for (int rank = 0; rank < ranks; ++rank) {
        const bool holder = everywhere || rank % size.tensor == victim % size.tensor;
        const std::string name =
            fmt::format("rank {} (data {}, tensor {}, ", rank, rank / size.tensor, rank % size.tensor);
        // Of two copies, either may be the wrong one.
        EXPECT_EQ(error.find(name) != std::string::npos, rank == victim || (holder && copies == 2)) << error;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, ReplicaCheckTest, ::testing::Values(HeadKind::dense, HeadKind::vq),
                         [](const auto& test) { return test.param == HeadKind::vq ? "vq" : "dense"; });

// Between two steps a copy in a data group is what the next forward pass overwrites. What tensor ranks hold both has no such
// remedy: here the owner's value on one of them, which it gives its data group. The check is the next step's.
TEST(ReplicaCheckOfARun, EndsItOnAllRanksWithoutSavingTheStep) {
  if (session().size() % 2 != 0) return;
  TrainingWorld world(211, 40);
  Config config = tiny_config(HeadKind::dense, world.shards, world.shared_path("run"));
  config.data.heldout.clear();
  config.train.steps = 6;
  config.train.check_replicas_every = 2;
  config.checkpoint.every = 1;
  config.checkpoint.keep = 0;
  const ProcessGrid grid(session(), *world.backend, session().size() / 2, 2);
  std::string error;
  try {
    train_run(*world.backend, grid, config, false, 0, [&](Trainer& trainer) {
      if (session().rank() == 0 && trainer.state().step + 1 == 3) flip(trainer.model().parameters(), "replicated");
    });
  } catch (const Error& ended) {
    error = ended.what();
  }
  EXPECT_THAT(error, HasSubstr("step 4: copies of the parameters differ: no majority among rank 0"));
  const std::filesystem::path saved = std::filesystem::path(config.run.dir) / "checkpoints";
  EXPECT_FALSE(std::filesystem::exists(saved / "step-00000004"));
  EXPECT_TRUE(std::filesystem::exists(saved / "step-00000003" / "manifest.json"));
}

}  // namespace
}  // namespace vqlm
