// A sign of life from long work that prints nothing by itself: a line that redraws itself on a terminal, a log line now and
// then elsewhere. Work of a moment stays silent.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace vqlm {

/// Whether standard error is a terminal, or VQLM_TERMINAL=1 says that it ends at one (mpirun hides that).
bool stderr_is_terminal();

/// "3 h 05 min", "4 min 09 s", "12 s".
std::string duration_text(double seconds);

class TaskProgress {
 public:
  /// Of several ranks one speaks.
  enum class Speaks { no, yes };
  struct Pace {
    std::chrono::milliseconds first;  // silence before the first line
    std::chrono::milliseconds every;
  };

  /// `what` begins the line: "training a tokenizer of 32000 pieces". A thread of its own writes it until the destructor.
  explicit TaskProgress(std::string what, Speaks speaks = Speaks::yes);
  TaskProgress(std::string what, Speaks speaks, bool terminal, Pace pace);
  ~TaskProgress();
  TaskProgress(const TaskProgress&) = delete;
  TaskProgress& operator=(const TaskProgress&) = delete;

  /// How far it is, from any thread; without it the line tells the time alone.
  void set(std::int64_t done, std::int64_t total);

 private:
  void speak();
  std::string line() const;

  const std::string what_;
  const bool terminal_;
  const Pace pace_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::atomic<std::int64_t> done_ = 0, total_ = 0;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false;    // guarded by mutex_
  std::thread thread_;  // none where it does not speak
};

}  // namespace vqlm
