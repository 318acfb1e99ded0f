// The samples of a run's steps, past and to come, from its folder: the configuration, how far it has come, and its shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/shards/sample_order.h"
#include "data/shards/shard_set.h"
#include "train/checkpoint/manifest.h"
#include "train/config/config.h"
#include "train/run/sample_place.h"

namespace vqlm {

class RunSamples {
 public:
  /// `run`: a run's folder. Reads config.toml, metrics.jsonl and the newest checkpoint, and opens the training shards.
  /// Throws Error for a folder that is no run, and for shards that are not those of the run.
  explicit RunSamples(const std::filesystem::path& run);

  const Config& config() const { return config_; }
  ShardSet& shards() { return places_.shards(); }
  SampleOrder& order() { return places_.order(); }
  /// Where the run stands.
  const TrainState& state() const { return state_; }

  /// The first sample of a step, from 1, and how many it has. Steps that the run has not done yet are those that it will do
  /// when it goes on as it is. Throws UsageError for a step outside 1 to train.steps.
  std::uint64_t first_sample(std::int64_t step) const;
  std::int64_t step_samples(std::int64_t step) const;
  /// The step that reads this sample of the run; for those read before a run of --resume-from went on, the last step before.
  std::int64_t step_of(std::uint64_t position) const;
  /// Samples until train.steps.
  std::uint64_t all_samples() const;

  SamplePlace place(std::uint64_t position) { return places_.at(position); }

  /// A document of a training shard, found by the file and record that it was made of.
  struct Found {
    std::string shard;
    std::uint64_t document = 0;
    std::string file;
    std::uint64_t first_token = 0;  // in the whole stream
    std::uint64_t end_token = 0;
    std::size_t source = 0;  // of order()
  };
  /// The documents of record `record` of the file, which may be named by the last parts of its path. Throws Error naming the
  /// file where no shard was made of it, and where the shards do not tell records.
  std::vector<Found> find(const std::string& file, std::uint64_t record);
  /// The places in the run's sequence at which a token of the document is read, rising.
  std::vector<std::uint64_t> positions(const Found& document);

 private:
  /// From a step on, every step has this many samples.
  struct Pace {
    std::int64_t first_step = 1;
    std::uint64_t first_sample = 0;
    std::int64_t samples = 0;
  };
  void read_paces(const std::filesystem::path& metrics);

  Config config_;
  std::vector<Pace> paces_;
  TrainState state_;
  SamplePlaces places_;
};

}  // namespace vqlm
