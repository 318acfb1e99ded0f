// What a run reports while it trains: metrics.jsonl, a TensorBoard event file, and lines for people. Rank 0
// only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "train/config/config.h"
#include "train/records/append_file.h"
#include "train/records/event_file.h"
#include "train/records/progress.h"

namespace vqlm {

/// A source of training text, where a run has several.
struct SourceMetrics {
  std::string name;
  std::optional<double> loss = {};  // mean over the step's tokens of it; none where the step has none
  double epochs = 0;                // of it, read since the run began
};

/// A time of one step as the ranks took it.
struct RankTimes {
  double least = 0, most = 0;  // seconds
  int slowest = 0;             // the rank that took most
};

/// One optimizer step, over all ranks.
struct StepMetrics {
  std::int64_t step = 0;    // from 1
  std::int64_t tokens = 0;  // trained on since the run began, this step included
  double loss = 0;          // mean over the step's tokens, in nats
  double lr = 0;
  double grad_norm = 0;  // before clipping
  double tokens_per_second = 0;
  double seconds = 0;                                         // wall time of the step
  double seconds_data = 0;                                    // of it, waiting for the loader
  double seconds_head = 0;                                    // of it, in the output head, forward and backward
  std::optional<RankTimes> data_times = {}, head_times = {};  // of several ranks
  double mfu = 0;                                             // model FLOP/s / measured peak, in [0, 1]
  bool skipped = false;                                       // the gradient was not finite, nothing was updated
  std::optional<double> commitment;   // mean commitment loss over the step's tokens, where the head has one
  std::optional<double> z_loss = {};  // mean of head.z_loss * log^2 of the softmax's sum, where the head has it
  std::vector<double> future_losses =
      {};                        // of heads for later tokens: mean over the positions that have one to predict
  std::size_t memory_bytes = 0;  // of the back end on this rank, the most so far
  std::vector<SourceMetrics> sources = {};
};

/// A named held-out set.
struct HeldoutSetMetrics {
  std::string name;
  double loss = 0;  // mean over its evaluated tokens, in nats
  std::int64_t tokens = 0;
};

/// One held-out evaluation while training.
struct HeldoutMetrics {
  std::int64_t step = 0;  // steps done
  std::int64_t tokens = 0;
  double loss = 0;  // mean over the evaluated tokens, in nats
  std::optional<double> bits_per_byte = {};
  std::int64_t heldout_tokens = 0;
  double seconds = 0;
  std::vector<HeldoutSetMetrics> sets = {};                   // where they have names
  std::optional<double> cluster_loss = {}, member_loss = {};  // the loss in parts, of heads with clusters
  std::vector<double> future_losses = {};                     // of heads for later tokens, as in StepMetrics
};

/// A checkpoint that is on disk.
struct CheckpointMetrics {
  std::int64_t step = 0;  // that it holds; later steps may have been written before this
  std::string name;
  double wait_seconds = 0;   // that the run waited for the checkpoint before it,
  double copy_seconds = 0;   // and for the copy
  double write_seconds = 0;  // in the background
};

/// What a run that went on lost: steps that it had done already and did again, and the time between its jobs.
struct LostTime {
  std::int64_t steps_repeated = 0;
  double seconds_repeated = 0;      // that those steps had taken
  double seconds_between = 0;       // from the last line of one job to the start of the next
  std::int64_t evaluated_step = 0;  // not lost: of the last held-out loss that stays; 0: none
};

/// Rewrites the file without lines of steps after `last_step` and without a last line that a crash cut; a
/// missing file is left missing. Returns what is lost by that, with what lines cut now said of earlier times; none where there is
/// no file. Throws Error naming the file, and the line where an earlier one is not JSON.
std::optional<LostTime> cut_metrics(const std::filesystem::path& path, std::int64_t last_step);
/// The last step that the file has a held-out loss of, 0 for none, lines that cannot be read passed over; none where there is
/// no file.
std::optional<std::int64_t> last_evaluated_step(const std::filesystem::path& path);

class Metrics {
 public:
  /// Writes into config.run.dir, which exists. resumed_step: steps already done (0: a run from the start);
  /// what the files say about later steps is cut.
  Metrics(const Config& config, std::int64_t resumed_step, Terminal terminal);

  /// What cannot be written (a full disk) is reported once and kept for the next line: the run goes on.
  void add(const StepMetrics& step);
  void add(const HeldoutMetrics& heldout);
  void add(const CheckpointMetrics& checkpoint);
  /// Whether the run goes on after `step` and its records have no held-out loss of it.
  bool lacks_evaluation(std::int64_t step) const { return lost_ && lost_->evaluated_step < step; }

 private:
  void write(std::int64_t step, const std::string& line, const std::vector<Scalar>& scalars);
  void note_resumed(std::int64_t step);

  std::optional<LostTime> lost_;  // before this job
  AppendFile lines_;
  EventFile events_;
  Progress progress_;
  bool full_ = false;  // the last line could not be written
};

}  // namespace vqlm
