// Training runs of a tiny model on shards of random text, for tests that compare runs.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/rng.h"
#include "data/shards/token_shards.h"
#include "tests/train/head_config.h"
#include "tests/train/stale_values.h"
#include "train/run/training_run.h"

namespace vqlm::testing {

/// Prime, so that no grid divides it.
constexpr std::int64_t tiny_vocabulary = 4001;
/// Steps of a tiny run.
constexpr std::int64_t tiny_steps = 12;

/// Two shards of documents whose tokens fall off like Zipf's law, into folder/NAME-0000N.h5.
inline void write_zipf_shards(const std::filesystem::path& folder, const std::string& name, int documents,
                              std::int64_t vocabulary = tiny_vocabulary) {
  const Philox rng(7, name);
  std::uint64_t drawn = 0;
  for (int shard = 0; shard < 2; ++shard) {
    ShardWriter writer((folder / (name + "-0000" + std::to_string(shard) + ".h5")).string(),
                       {.vocab_size = vocabulary, .eos_id = 2, .tokenizer_sha256 = "tiny", .sources = {}});
    for (int i = 0; i < documents; ++i) {
      std::vector<std::uint32_t> tokens(20 + rng.below(drawn++, 100));
      for (auto& token : tokens) {
        const double u = static_cast<double>(rng.uniform(drawn++));
        token = static_cast<std::uint32_t>(std::pow(static_cast<double>(vocabulary), u)) - 1;
      }
      tokens.back() = 2;
      writer.add_document(tokens, 4 * tokens.size());
    }
    writer.finish();
  }
}

/// d = 64, 2 layers, 4 heads, T = 32, 12 sequences a step.
inline Config tiny_config(HeadKind head, const std::filesystem::path& shards, const std::filesystem::path& run) {
  Config config;
  config.model.d_model = 64;
  config.model.n_layers = 2;
  config.model.n_heads = 4;
  config.model.n_kv_heads = 4;
  config.model.d_ff = 128;
  config.head = head_of(head, {.clusters = 61,
                               .members = CodeMembersConfig{.groups = 8, .codes = 32},
                               .input_codes = false,
                               .map = "frequency",
                               .learning = CommitmentLearningConfig{}});
  config.optim.embedding.lr_ratio = 1;
  config.data.train = (shards / "train-*.h5").string();
  config.data.heldout = (shards / "heldout-*.h5").string();
  config.data.seq_len = 32;
  config.train.steps = tiny_steps;
  config.train.global_batch = 12;
  config.train.micro_batch = 1;
  config.optim.warmup_steps = 4;
  config.run.dir = run.string();
  config.run.log_every = 1000000;
  return config;
}

/// What a run tells about itself. All but first_step is read from the run folder's metrics, so it is empty on all ranks
/// but the grid's first; a resumed run's begin with what its first part left there.
struct TrainedRun {
  std::int64_t first_step = 0;     // steps already done when it began: 0, or the checkpoint's
  std::vector<double> losses;      // by step
  std::vector<double> heldout;     // by evaluation
  std::vector<double> future;      // of heads for later tokens, of all steps and evaluations
  std::vector<std::string> lines;  // of both, with times, so that no two runs have the same
};

/// Trains on the grid until step `stop_after` (0 = to the end), from the newest checkpoint where `resume`. after_update is
/// called after each step's update, which has left NaN where values are stale: no run may see them.
inline TrainedRun train_run(Backend& backend, const ProcessGrid& grid, Config config, bool resume = false,
                            std::int64_t stop_after = 0, const std::function<void(Trainer&)>& after_update = {}) {
  config.parallel = {.data = grid.data_size(), .tensor = grid.tensor_size()};
  ShardSet shards = open_training_shards(config);
  resolve(config, shards.vocab_size(), grid.world().size());
  const bool root = grid.world().rank() == 0;
  TrainingRun training(
      backend, grid, config, std::move(shards),
      {.existing = resume ? ExistingRun::resume : ExistingRun::refuse, .matmul_peak = Trainer::nobodys_peak});
  Trainer& trainer = training.trainer();
  TrainedRun run;
  run.first_step = trainer.state().step;
  training.train([&] {
    const int stale = poison_stale_values(backend, grid, trainer.model().parameters());
    EXPECT_EQ(stale > 0, grid.data_size() > 1);
    if (after_update) after_update(trainer);
    return stop_after > 0 && trainer.state().step + 1 >= stop_after;
  });

  if (!root) return run;
  std::ifstream lines(std::filesystem::path(config.run.dir) / "metrics.jsonl");
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("checkpoint") || json.contains("resumed")) continue;
    run.lines.push_back(line);
    if (json.contains("loss")) {
      const auto& loss = json.at("loss");  // null where it was not finite
      run.losses.push_back(loss.is_null() ? std::nan("") : loss.get<double>());
    }
    for (const char* key : {"future_losses", "heldout_future_losses"}) {
      if (json.contains(key)) run.future.insert(run.future.end(), json.at(key).begin(), json.at(key).end());
    }
    if (json.contains("heldout_loss")) run.heldout.push_back(json.at("heldout_loss").get<double>());
  }
  return run;
}

}  // namespace vqlm::testing
