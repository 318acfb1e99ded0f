#include "dist/collective_thread.h"

namespace vqlm {

CollectiveThread::CollectiveThread(Communicator& group) : group_(group), thread_([this] { work(); }) {}

CollectiveThread::~CollectiveThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    if (!jobs_.empty() || failure_) group_.abandon();
  }
  changed_.notify_all();
  thread_.join();
}

std::int64_t CollectiveThread::start(const Job& job) {
  std::int64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++begun_;
    if (failure_) return number;
    jobs_.push_back(job);
  }
  changed_.notify_all();
  return number;
}

void CollectiveThread::finish(std::int64_t number, std::string_view what) {
  const auto waiting = group_.inside(what);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || begun_ - static_cast<std::int64_t>(jobs_.size()) >= number; });
  if (failure_) std::rethrow_exception(failure_);
}

void CollectiveThread::finish(std::string_view what) {
  finish(begun_, what);  // which this thread alone changes
}

void CollectiveThread::run(const Job& job) {
  if (job.kind == Kind::reduce_scatter) {
    group_.reduce_scatter(job.out, job.in, Reduce::sum, Stream{});
  } else {
    group_.all_gather(job.out, job.in, Stream{});
  }
}

void CollectiveThread::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (ending_) return;
    const Job job = jobs_.front();
    lock.unlock();
    std::exception_ptr failure;
    try {
      run(job);
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
