// NcclGroup: one NCCL communicator of this rank with its stream, and how calls on it are ordered, watched and aborted.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dist/nccl_check.h"
#include "dist/nccl_events.h"
#include "dist/watch/watchdog.h"

struct CUstream_st;

namespace vqlm {

struct NcclGroup;

/// What all groups of a rank share.
struct NcclRank {
  std::shared_ptr<RankActivity> activity;
  std::unique_ptr<Watchdog> watchdog;
  std::shared_ptr<NcclEvents> events;
  int max_ctas = 0;                // NcclOptions'
  const void* grouping = nullptr;  // the group between group_begin and group_end
  std::vector<NcclGroup*> groups;  // that exist; for the main thread

  /// Ends the work of every group at once: what one of them frees waits for all of the device's kernels, and those of the
  /// others wait for peers that may never come. A thread each, because ncclCommAbort may do so itself.
  void abort_all();
};

/// The end of one collective, or of all between group_begin and group_end.
struct NcclCompletion {
  Event event;
  std::atomic<bool> recorded = false;  // before, the host itself may be waiting for peers inside NCCL
};

struct NcclGroup {
  /// For the watchdog; the count is one rank's.
  struct Call {
    const char* collective;
    DType dtype;
    std::int64_t count;
    bool counts_differ = false;  // between ranks: a rank with no elements takes part, too
  };

  std::shared_ptr<NcclRank> shared;
  std::string name;
  int rank = 0;
  int size = 1;
  std::atomic<ncclComm*> comm = nullptr;  // null before NCCL has made it, and once aborted
  CUstream_st* stream = nullptr;
  void* barrier_flag = nullptr;  // one i32
  std::timed_mutex calls;        // held while the main thread is inside NCCL
  int watched = -1;
  std::shared_ptr<NcclCompletion> group_completion;  // between group_begin and group_end
  int exceptions_at_start = std::uncaught_exceptions();
  std::shared_ptr<const int> in_graphs = std::make_shared<int>();  // held by the events of captured calls, too

  NcclGroup() = default;
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  ~NcclGroup();

  /// Makes the stream and has the group watched; shared, name, rank and size are set.
  void start();
  void check(int code, const std::string& call) const { nccl_check(code, call, rank, name, comm); }
  void cuda(int code, const char* call) const { nccl_cuda_check(code, call, rank, name); }
  Stream own_stream() const { return Stream{stream}; }
  /// True while a graph lives that captured calls of this group: then NCCL can neither destroy nor abort it.
  bool captured() const { return in_graphs.use_count() > 1; }

  /// launch(comm, stream) hands one collective to NCCL, to run after what is on the caller's stream now. Returns the
  /// event of its end.
  template <class Launch>
  Event enqueue(const Call& call, Stream caller, Launch launch) {
    shared->watchdog->throw_if_failed();
    if (call.count == 0 && !call.counts_differ) return {};
    const std::shared_ptr<NcclCompletion> completion = completion_of_next(caller);
    const std::int64_t sequence = watch(call, caller, completion);
    wait_for(caller);
    {
      const std::lock_guard lock(calls);
      shared->watchdog->throw_if_failed();
      check_launch(launch(comm.load(), stream), call, sequence);
    }
    if (completion != group_completion) record(*completion);
    return completion->event;
  }
  void begin_calls();
  void end_calls();
  /// make() is a call in which the host waits for the other ranks, such as the making of a communicator.
  template <class Make>
  void watch_host(const char* what, Make make) {
    const auto done = std::make_shared<std::atomic<bool>>(false);
    shared->watchdog->begin(watched, what, DType::u8, 0, [done] { return done->load(); });
    make();
    *done = true;
  }

 private:
  std::shared_ptr<NcclCompletion> completion_of_next(Stream caller);
  std::int64_t watch(const Call& call, Stream caller, const std::shared_ptr<NcclCompletion>& completion);
  void wait_for(Stream caller);
  void check_launch(int code, const Call& call, std::int64_t sequence) const;
  void record(NcclCompletion& completion);
  void abort();
  std::string error() const;

  friend NcclRank;
};

}  // namespace vqlm
