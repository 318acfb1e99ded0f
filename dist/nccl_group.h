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
#include "dist/watchdog.h"

struct CUstream_st;

namespace vqlm {

/// What all groups of a rank share.
struct NcclRank {
  std::unique_ptr<Watchdog> watchdog;
  std::shared_ptr<NcclEvents> events;
  const void* grouping = nullptr;  // the group between group_begin and group_end
};

struct NcclGroup {
  struct Call {
    const char* collective;
    DType dtype;
    std::int64_t count;
  };

  std::shared_ptr<NcclRank> shared;
  std::string name;
  int rank = 0;
  int size = 1;
  std::atomic<ncclComm*> comm = nullptr;  // null once aborted
  CUstream_st* stream = nullptr;
  void* barrier_flag = nullptr;  // one i32
  std::timed_mutex calls;        // held while the main thread is inside NCCL
  int watched = -1;
  std::vector<Call> grouped;  // since group_begin
  Event group_done;
  int exceptions_at_start = std::uncaught_exceptions();

  NcclGroup() = default;
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  ~NcclGroup();

  /// Makes the stream and has the group watched, once comm, rank, size and name are set.
  void start();
  void check(int code, const char* call) const { nccl_check(code, call, rank, name, comm); }
  void cuda(int code, const char* call) const { nccl_cuda_check(code, call, rank, name); }
  Stream own_stream() const { return Stream{stream}; }

  /// launch(comm, stream) hands one collective to NCCL, to run after what is on the caller's stream now. Returns the
  /// event of its end.
  template <class Launch>
  Event enqueue(const Call& call, Stream caller, Launch launch) {
    if (!prepare(call, caller)) return {};
    {
      const std::lock_guard lock(calls);
      shared->watchdog->throw_if_failed();
      check_launch(launch(comm.load(), stream), call);
    }
    return launched(call, caller);
  }
  void begin_calls();
  void end_calls();

 private:
  bool prepare(const Call& call, Stream caller);
  void check_launch(int code, const Call& call) const;
  Event launched(const Call& call, Stream caller);
  void record(const std::vector<Call>& made, bool captured, const Event& done);
  void abort();
  std::string error() const;
};

}  // namespace vqlm
