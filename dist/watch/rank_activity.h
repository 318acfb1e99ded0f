// RankActivity: what this rank's main thread does, for those that watch it: communicators and the trainer write it, the threads
// of the watchdogs read it. Knows neither MPI nor CUDA.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

namespace vqlm {

class RankActivity {
 public:
  using Clock = std::chrono::steady_clock;

  struct Seen {
    std::int64_t step = 0;         // of the training that it works on; 0: none yet
    std::int64_t collectives = 0;  // begun
    bool waiting = false;          // inside the last one; on devices never, since the host only enqueues them
    double seconds = 0;            // since the last one began or ended
    std::string last;              // "all_gather of group 'data'"; empty: none yet
    std::string pause;             // why the others should be patient with some rank; empty: they need not be
    double own_seconds = 0;        // outside of collectives, up to the beginning of `step`
    bool device = false;           // collectives are enqueued: neither `waiting` nor `own_seconds` says anything
  };

  /// While it lives the rank is inside a collective.
  class Inside {
   public:
    explicit Inside(RankActivity* activity) : activity_(activity) {}
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside() {
      if (activity_ != nullptr) activity_->leave();
    }

   private:
    RankActivity* activity_;
  };

  /// The main thread enters a collective that has finished when it returns. `collective` must live for ever.
  [[nodiscard]] Inside enter(std::string_view collective, const std::string& group);
  /// A device was given one.
  void enqueued(std::string_view collective, const std::string& group);
  /// A step of the training begins.
  void begin_step(std::int64_t step);
  /// While what is returned lives, one rank does what takes it long (`why`). The activity must outlive it. From any thread.
  [[nodiscard]] std::shared_ptr<void> pause(std::string why);

  /// This process was stopped for so long: neither its work nor its wait took that time.
  void forgive(Clock::duration gap);

  Seen seen() const;

 private:
  void begin(std::string_view collective, const std::string& group);
  void leave();

  mutable std::mutex mutex_;
  Clock::time_point changed_ = Clock::now();
  double own_seconds_ = 0;  // up to the last change
  std::string_view collective_;
  std::string group_;
  std::list<std::string> pauses_;
  Seen now_;
};

}  // namespace vqlm
