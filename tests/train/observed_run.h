// A training run that a test looks into while it trains.
#pragma once

#include <functional>
#include <optional>

#include "tests/train/tiny_run.h"

namespace vqlm::testing {

/// Trains `config` on the grid. `observe` is called on every rank once a step, after its update and before its statistics
/// are reduced. config.data and run.dir must be set.
inline void observe_run(Backend& backend, const ProcessGrid& grid, Config config,
                        const std::function<void()>& observe) {
  config.parallel.data = grid.data_size();
  config.parallel.tensor = grid.tensor_size();
  ShardSet shards = open_training_shards(config);
  resolve(config, shards.vocab_size(), grid.world().size());
  TrainingRun run(backend, grid, config, std::move(shards),
                  {.matmul_peak = Trainer::nobodys_peak, .keeps_records = false});
  run.train([&] {
    observe();
    return false;
  });
}

}  // namespace vqlm::testing
