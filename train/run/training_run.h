// One training, from a configuration to its end: the run's folder and lock, what it starts or goes on from, its inputs, the
// trainer and the records. What the command, the self-test and the tests train by.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/backend.h"
#include "dist/process_grid.h"
#include "train/checkpoint/checkpoint_reader.h"
#include "train/checkpoint/model_source.h"
#include "train/config/config.h"
#include "train/records/metrics.h"
#include "train/records/progress.h"
#include "train/records/run_folder.h"
#include "train/records/run_lock.h"
#include "train/run/time_limit.h"
#include "train/run/trainer.h"
#include "train/run/training_inputs.h"

namespace vqlm {

struct TrainingRunOptions {
  ExistingRun existing = ExistingRun::refuse;
  std::filesystem::path initial = {};  // the model whose parameters the run starts from; empty: random ones
  std::filesystem::path forked = {};   // the checkpoint, or the run, that a run without checkpoints goes on from
  std::string job = {};  // who trains here, for a second job that wants to; empty: the folder is not locked
  Terminal terminal = Terminal::no;
  /// Of matrix products by all ranks together, FLOP/s, against which utilisation is stated; 0: measured at the start.
  double matmul_peak = 0;
  bool keeps_records = true;  // config.toml, code_map.h5 and metrics in the run's folder
  /// Called on the first rank where records are kept, once the run is certain to start and its folder is its own.
  std::function<void(const std::filesystem::path& folder)> on_records = {};
  /// Called on every rank before the model takes its memory.
  std::function<void(const TrainingInputs&)> before_allocation = {};
};

class TrainingRun {
 public:
  /// config must be resolved for `shards` and the grid; the back end and the grid must outlive the run. Collective. Throws
  /// Error for a folder that is in use, not there or there already, and whatever the parts throw.
  TrainingRun(Backend& backend, const ProcessGrid& grid, const Config& config, ShardSet shards,
              const TrainingRunOptions& options);

  Trainer& trainer() { return *trainer_; }
  /// All steps were done before this run, and the evaluation of the last one, which a job that died may owe.
  bool has_nothing_to_do() const { return nothing_to_do_; }
  /// Trains (Trainer::run). Once.
  TrainOutcome train(const std::function<bool()>& stop_requested, const TimeLimit& limit = {});

 private:
  void open_folder();
  /// The checkpoint that a resumed or forked run goes on from and the model that another starts from, where there are such.
  void open_beginning(const ShardSet& shards);
  void open_fork(const ShardSet& shards);
  /// Gives the model that a fork goes on from its head, where that is another.
  void change_head();
  /// The sources and weights that the checkpoint's run had until then stay in config_ (mixture.h).
  void adopt_mixture();
  /// What text counts and map are of: those that a run which goes on began with, or what data.counted_text says.
  void settle_counted_text();
  void begin_records();
  /// Whether the records of the run that goes on here lack an evaluation of its checkpoint's step. Collective.
  bool lacks_last_evaluation() const;

  Backend& backend_;
  const ProcessGrid& grid_;
  Config config_;  // as it stands once the beginning is open
  const TrainingRunOptions options_;
  RunFolder folder_;
  std::optional<RunLock> lock_;
  std::optional<CheckpointReader> resumed_;
  std::unique_ptr<ModelSource> initial_;
  std::vector<std::unique_ptr<ModelSource>> changed_;  // the resumed model with another head, where it has one
  std::optional<TrainingInputs> inputs_;
  std::optional<Trainer> trainer_;
  std::optional<Metrics> metrics_;
  bool nothing_to_do_ = false;
};

}  // namespace vqlm
