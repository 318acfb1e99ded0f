// A step of a run once more, from the checkpoint before it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/backend.h"
#include "data/shards/shard_set.h"
#include "dist/process_grid.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/config/config.h"
#include "train/records/metrics.h"
#include "train/run/step_losses.h"

namespace vqlm {

/// What a replay of step `step` starts from, and the configuration that the run did the step by.
struct ReplayPlan {
  std::filesystem::path checkpoint;  // the newest one before the step; empty: the run's start,
  std::filesystem::path initial;     // which was this model (--init); empty: random parameters
  std::int64_t done = 0;             // its steps
  Config config;                     // as the run's folder has it: for the grid of that job
};
/// Throws UsageError for a step that the run does not have.
ReplayPlan plan_replay(const std::filesystem::path& run, std::int64_t step);

/// A step as it was done again, and as metrics.jsonl has it where it is there.
struct ReplayedStep {
  StepMetrics step;
  std::optional<double> recorded_loss, recorded_grad_norm;
  struct Sample {
    SampleLoss loss;
    std::string place;  // in a line
  };
  std::vector<Sample> worst;  // on the first rank
};
/// plan.config must be resolved for this job and these shards, those of the run; `worst`: samples to name at most. Collective
/// over the grid. Writes nothing.
ReplayedStep replay(Backend& backend, const ProcessGrid& grid, const ReplayPlan& plan, ShardSet shards,
                    const std::filesystem::path& run, std::int64_t step, std::size_t worst);

}  // namespace vqlm
