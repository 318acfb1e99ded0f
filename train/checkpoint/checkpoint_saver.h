// Saving while training goes on. Every rank copies the slices that it owns to host memory, which is all that a step waits
// for; a thread of each rank writes and hashes them, and when all are done, one of rank 0 completes the checkpoint and gives
// it its name. Threads call no collective: how far they are travels in the reduction that ends every step. Layout:
// docs/checkpoints.md.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/model/head/code_map.h"
#include "dist/process_grid.h"
#include "train/checkpoint/checkpoint_retention.h"
#include "train/checkpoint/checkpoint_snapshot.h"
#include "train/checkpoint/manifest.h"
#include "train/checkpoint/trained_source.h"
#include "train/config/config.h"

namespace vqlm {

/// What a checkpoint takes in. All pointers and references are only read and must outlive the saver; `map` is null for
/// dense heads, and may change between saves.
struct CheckpointContents {
  Backend& backend;
  const ParameterStore& parameters;
  const Optimizer& optimizer;
  const Config& config;
  const CodeMap* map = nullptr;
  std::vector<std::filesystem::path> tokenizer;  // files, copied in
  std::string tokenizer_sha256;                  // of the training shards
  std::vector<TrainedSource> sources = {};       // what it is trained on; read by rank 0 alone
};

/// A checkpoint that is complete and has its name.
struct SavedCheckpoint {
  std::int64_t step = 0;
  std::filesystem::path path;
  double wait_seconds = 0;   // that the run waited for the checkpoint before it, in flight when this one was due
  double copy_seconds = 0;   // that the run waited for the copy; both of the slowest rank
  double write_seconds = 0;  // that threads then worked: the slowest rank's file, and rank 0's completion
};

/// begin(), advance() and finish() are collective, and everything that the saver tells is the same on every rank.
class CheckpointSaver {
 public:
  /// Saves into `folder`/step-...; config.checkpoint says which ones stay.
  CheckpointSaver(CheckpointContents contents, const ProcessGrid& grid, std::filesystem::path folder);

  /// Copies the state that belongs to `state` and starts to write it. Waits for an earlier save first.
  void begin(const TrainState& state);
  /// 1 where this rank's thread has ended, else 0: to be summed over all ranks for advance().
  double progress() const;
  /// Goes on to the next stage when the sum says that all ranks have done the one in flight.
  void advance(double progress_of_all);
  /// Waits for the save in flight, if there is one.
  void finish();

  /// The checkpoint completed since the last call.
  std::optional<SavedCheckpoint> take_saved() { return std::exchange(saved_, std::nullopt); }
  /// Why the newest save that has ended failed: one line with rank, file and reason; empty where it did not. Its partial
  /// folder is gone, and earlier checkpoints are as they were.
  const std::string& failure() const { return failure_; }
  /// How many of the newest saves have failed in a row.
  int failures_in_a_row() const { return failures_in_a_row_; }
  /// Seconds from begin() to the name, of the slowest save so far; before the first, those of a disk that takes 50 MB/s a
  /// rank.
  double expected_seconds() const;

 private:
  /// Of the save in flight: ranks write their files; rank 0 completes the checkpoint, or removes what a failure left.
  enum class Stage { none, writing, completing, removing };
  struct Outcome {
    std::string error;
    double seconds = 0;
  };
  void start(std::function<void()> work);
  void write_rank_file();
  void complete();
  void end_writing(const Outcome& mine);
  void end_completing(const Outcome& mine);
  /// Notes and reports the failure of any rank's part; false where there is none.
  bool note_failure(const Outcome& mine);
  bool is_root() const { return grid_.world().rank() == 0; }

  CheckpointContents contents_;
  const ProcessGrid& grid_;
  std::filesystem::path folder_;
  CheckpointSnapshot snapshot_;
  Stage stage_ = Stage::none;
  TrainState state_;
  std::optional<CodeMap> map_;  // as it was at begin(), rank 0 only
  SavedCheckpoint pending_;     // the one in flight
  std::optional<SavedCheckpoint> saved_;
  std::string failure_;
  int failures_in_a_row_ = 0;
  double slowest_seconds_ = 0;
  std::future<Outcome> task_;  // last: its destructor waits for the thread, which uses the rest
};

}  // namespace vqlm
