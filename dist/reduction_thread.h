// Reductions beside the main thread's work, on hosts: MPI moves nothing while nobody calls it, so that a thread of its own
// brings each bucket of gradients to its owners while backward goes on.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "core/communicator.h"

namespace vqlm {

class ReductionThread {
 public:
  /// `group` is this thread's alone from now on (ProcessGrid::beside()), and must outlive it.
  explicit ReductionThread(Communicator& group);
  /// Left with reductions that are not done, or after one has failed, it gives them up: the job cannot go on.
  ~ReductionThread();
  ReductionThread(const ReductionThread&) = delete;
  ReductionThread& operator=(const ReductionThread&) = delete;

  /// Begins group.reduce_scatter(out, in, Reduce::sum), after those begun before. Nobody touches either until finish(). After
  /// one has failed nothing begins.
  void start(Tensor out, Tensor in);
  /// Returns when all that was begun is done; throws what one of them threw.
  void finish();

 private:
  struct Job {
    Tensor out, in;
  };
  void work();

  Communicator& group_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;        // the first is the one at work
  std::exception_ptr failure_;  // of the first reduction that failed: the ranks are no longer in step
  bool ending_ = false;
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace vqlm
