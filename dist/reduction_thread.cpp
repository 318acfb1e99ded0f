#include "dist/reduction_thread.h"

namespace vqlm {

ReductionThread::ReductionThread(Communicator& group) : group_(group), thread_([this] { work(); }) {}

ReductionThread::~ReductionThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    if (!jobs_.empty() || failure_) group_.abandon();
  }
  changed_.notify_all();
  thread_.join();
}

void ReductionThread::start(Tensor out, Tensor in) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    jobs_.push_back({out, in});
  }
  changed_.notify_all();
}

void ReductionThread::finish() {
  const auto waiting = group_.inside("reduce_scatter of gradients");
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return jobs_.empty(); });
  if (failure_) std::rethrow_exception(failure_);
}

void ReductionThread::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (ending_) return;
    const Job job = jobs_.front();
    lock.unlock();
    std::exception_ptr failure;
    try {
      group_.reduce_scatter(job.out, job.in, Reduce::sum, Stream{});
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure) {
      failure_ = failure;
      jobs_.clear();  // the other ranks would wait for this one's part of them: the job ends
    } else {
      jobs_.pop_front();
    }
    changed_.notify_all();
  }
}

}  // namespace vqlm
