// SlowRanks: who slows a job down without hanging, by the ranks' beats: a rank whose own work takes long, a link that is slow
// or loses datagrams. Pure: time is told to it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "dist/watch/beat.h"

namespace vqlm {

class SlowRanks {
 public:
  using Clock = std::chrono::steady_clock;

  /// `names`: "rank 3 on h2", for messages.
  SlowRanks(std::vector<std::string> names, Clock::time_point now);

  void beat(const Beat& beat);
  /// What is new to say; once for as long as it lasts.
  std::vector<std::string> judge(Clock::time_point now);

 private:
  struct Rank {
    std::string name;
    RankActivity::Seen seen;
    std::int64_t window_step = 0;  // at the window's begin
    double window_seconds = 0;     // own, up to then
    double seconds_a_step = 0;     // own work in the last window
    int slow_windows = 0;          // in a row
    bool told_slow = false;
    double round_trip = 0, lost = 0;  // the last beat's
    bool told_delay = false, told_loss = false;
  };

  bool close_window(Clock::time_point now);
  void judge_work(std::vector<std::string>& words);
  void judge_links(std::vector<std::string>& words);

  std::vector<Rank> ranks_;
  Clock::time_point window_begin_;
};

}  // namespace vqlm
