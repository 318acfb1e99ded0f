// HeartbeatTable: what rank 0 knows of all ranks by their beats, and what it concludes: who gives no sign of life, who keeps
// the others waiting. Pure: time is told to it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dist/watch/beat.h"

namespace vqlm {

struct HeartbeatLimits {
  /// A rank without a sign of life for longer ends the job; 0: none does.
  double heartbeat_seconds = 45;
  /// Ranks that wait in a host collective for longer end the job, by the name of the rank that they wait for, but not before a
  /// pause of any rank is as long ago; 0: none.
  double timeout_seconds = 600;
};

/// What follows from the beats so far.
struct HeartbeatVerdict {
  std::string failure;  // why the job must end; empty: it need not
  std::vector<std::string> warnings;
};

class HeartbeatTable {
 public:
  using Clock = std::chrono::steady_clock;

  /// `hosts`: the name of each rank's host.
  HeartbeatTable(std::vector<std::string> hosts, Clock::time_point now);

  void beat(const Beat& beat, Clock::time_point now);
  /// This process itself was stopped for so long, and heard nobody: nobody is to blame for that.
  void forgive(Clock::duration gap);
  /// Other limits hold from now on, and all times count from now.
  void begin_anew(Clock::time_point now);
  /// Each warning comes once for what it warns of.
  HeartbeatVerdict judge(const HeartbeatLimits& limits, Clock::time_point now);
  /// "rank 3 on h2 is behind: ..." where some ranks have begun more than others; else empty. For the time-outs of devices.
  std::string who_is_behind(Clock::time_point now) const;

  /// "rank 3 on h2".
  std::string name_of(int rank) const;
  int ranks() const { return static_cast<int>(ranks_.size()); }

 private:
  struct Rank {
    std::string host;
    bool heard = false, left = false, warned = false;
    Clock::time_point last;     // sign of life
    Clock::time_point changed;  // when `seen` last told something new
    RankActivity::Seen seen;
  };

  double silence(const Rank& rank, Clock::time_point now) const;
  bool is_silent(const Rank& rank, double seconds, Clock::time_point now) const;
  std::string silent(double heartbeat_seconds, Clock::time_point now) const;
  std::string stuck(double timeout_seconds, Clock::time_point now) const;
  void warn_of_silence(const HeartbeatLimits& limits, Clock::time_point now, std::vector<std::string>& warnings);
  void warn_of_unheard(const HeartbeatLimits& limits, Clock::time_point now, std::vector<std::string>& warnings);
  std::vector<int> behind() const;
  double unchanged(const Rank& rank, Clock::time_point now) const;
  bool is_known(const Rank& rank) const { return rank.heard && !rank.left; }

  std::vector<Rank> ranks_;
  Clock::time_point begin_;
  std::optional<Clock::time_point> last_pause_;  // when a rank last asked for patience
  bool told_unheard_ = false, told_pause_ = false;
};

/// "in step 120, after all_gather of group 'data'".
std::string doing(const RankActivity::Seen& seen);

}  // namespace vqlm
