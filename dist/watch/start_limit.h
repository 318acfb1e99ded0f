// StartLimit: ends the process where MPI does not connect the ranks in time. With a network interface that looks alike on every
// host (docker0) or leads nowhere, Open MPI waits for ever, at full speed and without a word.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace vqlm {

class StartLimit {
 public:
  /// From now on: `seconds`, 0 for none; `host` and `rank` are for the message.
  StartLimit(double seconds, std::string host, int rank);
  /// The ranks are connected, or will never be: nothing is ended any more.
  ~StartLimit();
  StartLimit(const StartLimit&) = delete;
  StartLimit& operator=(const StartLimit&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace vqlm
