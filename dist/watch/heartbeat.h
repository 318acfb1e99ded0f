// Heartbeat: a thread of every rank tells rank 0 by UDP, beside the collectives, that the rank lives and what it does; rank 0
// ends the job, with the rank and its host named, where one gives no sign of life or keeps the others waiting, and warns of
// slow ones. The other ranks watch rank 0. It needs no collective to go on, so it sees ranks that are stopped, swap, or are cut
// off, for which MPI's collectives wait for ever.
//
// UDP because a beat that is late is worth nothing: no connection has to be made or time out, and one socket serves
// thousands of ranks. Beats of another job cannot be taken for ours: they carry a random number.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "dist/watch/datagram_socket.h"
#include "dist/watch/heartbeat_table.h"
#include "dist/watch/rank_activity.h"

namespace vqlm {

class Heartbeat {
 public:
  /// The texts of all ranks in rank order, on every rank: MpiSession::gather_texts.
  using GatherTexts = std::function<std::vector<std::string>(const std::string&)>;

  struct Options {
    int rank = 0;
    std::string host;  // this rank's, for messages
    HeartbeatLimits limits;
    /// Interfaces that the beats may take, as in VQLM_INTERFACE; empty: all.
    std::string interface;
    /// Of this process, where on_failure does not end it in time.
    int exit_code = 1;
    /// Ends the job on every rank; expected not to return. Called once, from the heartbeat's thread.
    std::function<void(const std::string& message)> on_failure;
  };

  /// Collective over the ranks of `gather`, of which there are at least 2. `activity` is this rank's. Throws Error.
  Heartbeat(const GatherTexts& gather, std::shared_ptr<RankActivity> activity, Options options);
  /// Tells the others that this rank is done; no collective.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  /// Those of the run's configuration, once it is read. The same on every rank.
  void set_limits(const HeartbeatLimits& limits);
  /// Which rank is behind the others, as rank 0 last told; empty: none is, or it has not said.
  std::string who_is_behind() const;
  /// The hosts' names, by rank.
  const std::vector<std::string>& hosts() const { return hosts_; }

 private:
  using Clock = HeartbeatTable::Clock;
  class Monitor;  // what rank 0 has beside
  struct Link;    // what the others have

  void run();
  void serve(Monitor& monitor);
  void converse(Link& link);
  Clock::duration own_sleep(Clock::time_point now);
  void beat(Link& link, bool leaves, Clock::time_point now);
  void hear(Link& link, const Answer& answer, Clock::time_point now);
  void judge_rank_0(Link& link, Clock::time_point now);
  void fail(const std::string& message);
  HeartbeatLimits limits() const;
  bool take_new_limits();
  void set_who_is_behind(std::string words);

  const Options options_;
  const std::shared_ptr<RankActivity> activity_;
  DatagramSocket socket_;
  std::uint64_t job_ = 0;
  std::vector<std::string> hosts_;
  std::vector<SocketAddress> addresses_;  // of rank 0
  mutable std::mutex mutex_;
  HeartbeatLimits limits_;
  std::string who_is_behind_;
  Clock::time_point last_turn_;  // of the thread
  bool limits_are_new_ = false;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace vqlm
