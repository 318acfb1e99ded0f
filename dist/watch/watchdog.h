// Watchdog: watches collectives that run while the host goes on, so that a rank that dies or falls behind ends the job
// with a message instead of leaving the others to wait for ever. One thread a process; knows neither MPI nor CUDA.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "core/dtype.h"
#include "dist/watch/rank_activity.h"

namespace vqlm {

class Watchdog {
 public:
  struct Options {
    /// Rank in the world, for messages.
    int rank = 0;
    /// A collective unfinished for longer ends the job; 0 = only errors do.
    double timeout_seconds = 600;
    /// Told of every collective; may be null.
    std::shared_ptr<RankActivity> activity = nullptr;
    /// Which rank is behind the others, for the message of a time-out; empty: nobody knows. May be none.
    std::function<std::string()> who_is_behind = nullptr;
    /// Ends the job on every rank; expected not to return. Called once, from the watchdog's thread (or another of its
    /// making), so it must not use MPI otherwise: the library may leave MPI to the main thread (MPI_THREAD_FUNNELED).
    std::function<void(const std::string& message)> on_failure;
  };

  /// A group of ranks whose collectives end in the order in which they began.
  struct Group {
    std::string name;
    /// This rank's number in the group, and the group's size.
    int rank = 0;
    int size = 1;
    /// The group's asynchronous error, or "" while there is none. Polled from the watchdog's thread.
    std::function<std::string()> error;
    /// Called from the watchdog's thread when the job is about to be ended: makes work in flight stop.
    std::function<void()> abort;
  };

  /// Starts the thread.
  explicit Watchdog(Options options);
  /// Stops it. Groups should have been removed.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  int add_group(Group group);
  /// Forgets the group and its collectives; none of its functions is called from then on.
  void remove_group(int group);

  /// A collective is about to be enqueued. `name`, "all_reduce", must live for ever. `done` tells, from the watchdog's thread,
  /// whether it has finished, and must not block; empty for one that was captured into a graph. Returns its number in the group, from 1:
  /// the same on every rank, because all ranks make the same calls in the same order.
  std::int64_t begin(int group, std::string_view name, DType dtype, std::int64_t count, std::function<bool()> done);

  /// No time-outs while what is returned lives: one rank works for long (`why`, "counting tokens") and the others wait for it.
  /// Only warns then, each time that the time-out passes. Collectives that are still unfinished afterwards have the whole
  /// time-out from then on. Pauses may overlap. The watchdog must outlive it.
  [[nodiscard]] std::shared_ptr<void> pause(std::string why);

  /// Throws Error once the job is being ended, but not before others have had the time to say why. Aborted collectives end
  /// without a result, so whoever waited for one may see anything until on_failure has ended the process; calling this
  /// before every further collective and after every barrier keeps such a result from reaching other ranks or a finished
  /// checkpoint.
  void throw_if_failed() const;

  /// What is dumped on a failure. First line: how far each group has come, "group 'data': last completed #7 of 9". Then the
  /// last collectives, oldest first, one a line.
  std::string dump() const;

 private:
  using Clock = std::chrono::steady_clock;
  enum class State { queued, done, captured };
  struct Entry {
    int group;
    std::int64_t sequence;
    std::string_view name;
    DType dtype;
    std::int64_t count;
    State state;
    Clock::time_point enqueued;
    Clock::time_point counted_from;  // of the time-out: enqueued, or the end of a later pause
    std::function<bool()> done;
  };

  void run();
  std::string find_error();
  void poll_entries();
  const Entry* find_overdue() const;
  std::string overdue_message();
  std::string progress() const;
  void warn_of_long_wait(const Entry& overdue);
  void resume(std::list<std::string>::iterator pause);
  std::string describe(const Entry& entry) const;
  void fail(const std::string& message, std::chrono::milliseconds wait_before_end);

  const Options options_;
  mutable std::mutex groups_mutex_;  // taken before entries_mutex_; held while a group's functions run
  mutable std::mutex entries_mutex_;
  std::map<int, Group> groups_;
  int groups_made_ = 0;
  std::deque<Entry> entries_;  // the last 64, and every unfinished one
  struct Progress {
    std::int64_t begun = 0;
    std::int64_t completed = 0;
    std::int64_t captured = 0;  // calls recorded into graphs, which may be replayed unseen
  };
  std::map<int, Progress> progress_;  // of each group
  std::list<std::string> pauses_;     // why
  Clock::time_point warned_;          // of a long wait, or when the first pause began
  std::string failure_;
  Clock::time_point end_;  // when the job is ended for it
  std::atomic<bool> failed_ = false;
  bool stopping_ = false;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace vqlm
