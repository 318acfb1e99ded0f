// Collectives beside the main thread's work, on hosts: MPI moves nothing while nobody calls it, so that a thread of its own
// brings each bucket of gradients to its owners while backward goes on, and each bucket of new values to everybody while
// forward does.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>

#include "core/communicator.h"

namespace vqlm {

class CollectiveThread {
 public:
  /// `group` is this thread's alone from now on (ProcessGrid::beside()), and must outlive it.
  explicit CollectiveThread(Communicator& group);
  /// Left with collectives that are not done, or after one has failed, it gives them up: the job cannot go on.
  ~CollectiveThread();
  CollectiveThread(const CollectiveThread&) = delete;
  CollectiveThread& operator=(const CollectiveThread&) = delete;

  /// Begins group.reduce_scatter(out, in, Reduce::sum) or group.all_gather(out, in), after those begun before: every rank
  /// begins the same in the same order. Nobody touches either tensor until it is done. After one has failed nothing begins.
  /// Returns the collective's number, from 1.
  std::int64_t reduce_scatter(Tensor out, Tensor in) { return start({Kind::reduce_scatter, out, in}); }
  std::int64_t all_gather(Tensor out, Tensor in) { return start({Kind::all_gather, out, in}); }
  /// Returns when the collectives up to this number, or all, are done; throws what one of them threw. `what`: for those that
  /// watch the ranks, to whom each call is one collective of the main thread's; must live for ever.
  void finish(std::int64_t number, std::string_view what);
  void finish(std::string_view what);

 private:
  enum class Kind { reduce_scatter, all_gather };
  struct Job {
    Kind kind;
    Tensor out, in;
  };
  std::int64_t start(const Job& job);
  void run(const Job& job);
  void work();

  Communicator& group_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;        // the first is the one at work
  std::int64_t begun_ = 0;      // and `begun_ - jobs_.size()` of them are done
  std::exception_ptr failure_;  // of the first collective that failed: the ranks are no longer in step
  bool ending_ = false;
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace vqlm
