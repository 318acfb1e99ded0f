// What a run counts before its first step: the tokens that it trains on, the same on every grid, and once.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "tests/train/training_world.h"
#include "train/codes/code_map_file.h"
#include "train/codes/map_counts.h"
#include "train/run/token_counts.h"

namespace vqlm {
namespace {

using testing::grids_of;
using testing::GridSize;
using testing::session;
using testing::tiny_config;
using testing::TrainingWorld;
using testing::vq;

constexpr std::int64_t vocabulary = 997;

class CountedTextOfRuns : public ::testing::Test {
 protected:
  CountedTextOfRuns() : world_(vocabulary, 60) {
    if (session().rank() == 0) testing::write_zipf_shards(world_.shards, "code", 4, vocabulary);
    world_.world.world().barrier();
  }

  /// 12 steps of 12 samples: about half of "train"; of "code" more than there are.
  Config config(const std::string& run, const std::string& map, bool mixed) {
    Config config = tiny_config(HeadKind::vq, world_.shards, world_.shared_path(run));
    vq(config).map = map;
    config.data.heldout.clear();
    config.optim.warmup_steps = 1;
    if (!mixed) return config;
    config.data.train.clear();
    config.data.mix = {{.name = "web", .train = (world_.shards / "train-*.h5").string(), .weight = 0.7},
                       {.name = "code", .train = (world_.shards / "code-*.h5").string(), .weight = 0.3},
                       {.name = "code", .weight = 3, .from_step = 6}};
    return config;
  }

  /// What the run has before its first step; then, where wanted, its steps.
  struct Begun {
    std::vector<std::int64_t> counts;
    CodeMap map;
    std::set<std::pair<std::int32_t, std::int64_t>> samples;  // of this rank
  };
  Begun begin(const ProcessGrid& grid, Config config, ExistingRun existing, bool trains) {
    config.parallel = {.data = grid.data_size(), .tensor = grid.tensor_size()};
    ShardSet shards = open_training_shards(config);
    resolve(config, shards.vocab_size(), grid.world().size());
    Begun begun;
    TrainingRun run(*world_.backend, grid, config, std::move(shards),
                    {.existing = existing,
                     .matmul_peak = Trainer::nobodys_peak,
                     .keeps_records = trains,
                     .before_allocation = [&](const TrainingInputs& inputs) {
                       begun.counts = inputs.counts;
                       if (inputs.map) begun.map = *inputs.map;
                     }});
    if (!trains) return begun;
    run.train([&] {
      const auto& numbers = run.trainer().step_samples();
      for (std::size_t i = 0; i < numbers.size(); ++i)
        begun.samples.emplace(run.trainer().step_sources()[i], numbers[i]);
      return false;
    });
    return begun;
  }

  /// The tokens that samples predict, by hand.
  static std::vector<std::int64_t> count(const Config& config,
                                         const std::set<std::pair<std::int32_t, std::int64_t>>& samples) {
    ShardSet shards = open_training_shards(config);
    std::vector<std::int64_t> counts(vocabulary, 0);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(config.data.seq_len));
    for (const auto& [source, number] : samples) {
      const std::uint64_t first = shards.parts()[static_cast<std::size_t>(source)].first_token;
      shards.read(first + static_cast<std::uint64_t>(number * config.data.seq_len) + 1, tokens);
      for (const std::int32_t token : tokens) ++counts[static_cast<std::size_t>(token)];
    }
    return counts;
  }

  TrainingWorld world_;
};

TEST_F(CountedTextOfRuns, IsWhatTheRunTrainsOnWhateverTheGrid) {
  for (const bool mixed : {false, true}) {
    const char* const map = mixed ? "frequency" : "corpus";
    SCOPED_TRACE(std::string(map) + (mixed ? " of a mixture" : ""));
    // Each rank alone trains the whole run in a folder of its own.
    Config own = config(map, map, mixed);
    own.run.dir = world_.folder.file(map);
    const Begun alone = begin(world_.alone, own, ExistingRun::refuse, true);
    EXPECT_EQ(alone.counts, count(own, alone.samples));
    const std::int64_t counted = std::accumulate(alone.counts.begin(), alone.counts.end(), std::int64_t{0});
    EXPECT_EQ(counted, static_cast<std::int64_t>(alone.samples.size()) * own.data.seq_len);
    if (mixed) {
      EXPECT_LT(alone.samples.size(), 12U * 12U);  // some were read twice
    }
    EXPECT_EQ(alone.map.counted_tokens, counted);
    EXPECT_EQ(load_code_map(own.run.dir + "/code_map.h5").counted_tokens, counted);
    EXPECT_EQ(load_saved_config(own.run.dir + "/config.toml").run.counted_samples, 144);

    for (const GridSize& size : grids_of(session().size())) {
      const ProcessGrid grid(session(), *world_.backend, size.data, size.tensor);
      const Begun begun = begin(grid, config(map + size.name(), map, mixed), ExistingRun::refuse, false);
      EXPECT_EQ(begun.counts, alone.counts) << size.name();
      EXPECT_EQ(begun.map.cluster_of_token, alone.map.cluster_of_token) << size.name();
      EXPECT_EQ(begun.map.member_codes, alone.map.member_codes) << size.name();
      EXPECT_EQ(begun.map.counted_tokens, counted) << size.name();
    }
  }
}

TEST_F(CountedTextOfRuns, ARunThatGoesOnCountsNothingAndKeepsItsMap) {
  const ProcessGrid& grid = world_.world;
  Config config = this->config("longer", "corpus", false);
  config.train.steps = 3;
  const Begun first = begin(grid, config, ExistingRun::refuse, true);
  EXPECT_FALSE(first.counts.empty());
  config.train.steps = 5;
  config.data.counted_text = CountedText::all;
  const Begun longer = begin(grid, config, ExistingRun::resume, true);
  EXPECT_TRUE(longer.counts.empty());
  EXPECT_EQ(longer.map.cluster_of_token, first.map.cluster_of_token);
  EXPECT_EQ(longer.map.counted_tokens, first.map.counted_tokens);
  world_.world.world().barrier();
  const Config saved = load_saved_config(config.run.dir + "/config.toml");
  EXPECT_EQ(saved.run.counted_samples, 36);
  EXPECT_EQ(saved.data.counted_text, CountedText::trained);
  EXPECT_EQ(saved.train.steps, 5);
  EXPECT_EQ(load_code_map(config.run.dir + "/code_map.h5").counted_tokens, first.map.counted_tokens);

  if (session().rank() > 0) return;  // and on another grid
  config.run.dir = world_.shared_path("alone").string();
  std::filesystem::copy(world_.shared_path("longer"), config.run.dir, std::filesystem::copy_options::recursive);
  config.train.steps = 6;
  const Begun alone = begin(world_.alone, config, ExistingRun::resume, true);
  EXPECT_TRUE(alone.counts.empty());
  EXPECT_EQ(alone.map.cluster_of_token, first.map.cluster_of_token);
}

TEST_F(CountedTextOfRuns, AllTextIsCountedWhereTheConfigurationSaysSo) {
  for (const HeadKind head : {HeadKind::vq, HeadKind::dense}) {
    Config config = this->config("all", "frequency", false);
    if (head == HeadKind::dense) config.head = DenseHeadConfig{};
    config.data.counted_text = CountedText::all;
    const Begun all = begin(world_.world, config, ExistingRun::refuse, false);
    const ShardSet shards = open_training_shards(config);
    EXPECT_EQ(all.counts, count_tokens(shards, 1'000'000));
    config.data.counted_text = CountedText::trained;
    const Begun trained = begin(world_.world, config, ExistingRun::refuse, false);
    EXPECT_LT(std::accumulate(trained.counts.begin(), trained.counts.end(), std::int64_t{0}),
              static_cast<std::int64_t>(shards.total_tokens()));
    if (head == HeadKind::vq) {
      EXPECT_EQ(all.map.counted_tokens, static_cast<std::int64_t>(shards.total_tokens()));
    }
    EXPECT_EQ(trained_tokens(config, shards, {}), 144 * 32);
  }
}

}  // namespace
}  // namespace vqlm
