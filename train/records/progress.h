// Lines for people while a run trains: one line that redraws itself on a terminal, plain log lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "core/task_progress.h"

namespace vqlm {

struct StepMetrics;

/// Whether standard error reaches a terminal.
enum class Terminal { no, yes };

class Progress {
 public:
  /// steps: of the whole run; log_every: steps between plain lines.
  Progress(std::int64_t steps, std::int64_t log_every, Terminal terminal);
  /// Ends the terminal's line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void add(const StepMetrics& step);

 private:
  std::string line(const StepMetrics& step) const;

  std::int64_t steps_;
  std::int64_t log_every_;
  Terminal terminal_;
  double seconds_per_step_ = 0;            // running mean
  double loss_sum_ = 0, loss_weight_ = 0;  // of the smoothed loss
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_drawn_{};
  bool drawn_ = false;
};

}  // namespace vqlm
