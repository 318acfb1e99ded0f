// The state behind the stand-in of the CUDA runtime, shared by cudart_*.cpp: streams with their queues, events,
// captures, allocations. One mutex guards it; it is free while queued work runs.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "tests/simt/event_clock.h"
#include "tests/simt/streams.h"

namespace simt {

/// One recording of an event: reached when the stream comes to it.
struct Marker {
  std::atomic<bool> reached{false};
  std::chrono::steady_clock::time_point when;

  void reach() {
    when = event_time();
    reached.store(true, std::memory_order_release);
  }
};
using MarkerPointer = std::shared_ptr<Marker>;

using Poll = std::function<bool()>;

struct GraphNode {
  Poll poll;                       // empty for external records and waits, and for joins
  std::vector<std::size_t> after;  // nodes before it
  cudaEvent_t records = nullptr;   // external: each launch records it anew
  cudaEvent_t waits = nullptr;
  bool kernel = false;
};

struct Capture {
  cudaStream_t origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool invalidated = false;
  std::vector<GraphNode> nodes;
  std::vector<cudaStream_t> streams;  // all that joined, the origin first
};

}  // namespace simt

// CUDA declares these types and leaves them to its runtime.
struct CUstream_st {
  unsigned flags = 0;
  int priority = 0;
  bool destroyed = false;  // kept until its work is done, as CUDA does
  std::deque<simt::Poll> queue;
  bool kernel_last = false;   // what was enqueued last, outside of captures
  std::uint64_t urgency = 0;  // random; the scheduler prefers the highest
  std::shared_ptr<simt::Capture> capture;
  std::vector<std::size_t> tail;  // of the capture: the nodes that the next one comes after
};

struct CUevent_st {
  unsigned flags = 0;
  simt::MarkerPointer marker;              // null before the first recording
  std::shared_ptr<simt::Capture> capture;  // set where the last recording was in a capture
  std::vector<std::size_t> tail;
};

namespace simt {

enum class Memory { device, pinned };

struct Allocation {
  Memory memory = Memory::device;
  std::size_t bytes = 0;
  bool from_pool = false;
  bool freed = false;  // cudaFreeAsync is queued
};

class Runtime {
 public:
  Runtime();

  std::mutex mutex;
  using Lock = std::unique_lock<std::mutex>;

  // Streams and events (cudart_streams.cpp). Null where the handle is none of ours.
  CUstream_st* find(cudaStream_t stream);
  CUevent_st* find(cudaEvent_t event);
  std::list<CUstream_st> streams;
  std::list<CUevent_st> events;
  CUstream_st default_stream;
  bool default_stream_allowed = false;
  std::mt19937_64 rng;

  /// Appends to the stream's queue or to its capture.
  void append(CUstream_st& stream, Poll poll, Work work = Work::other);
  /// Runs queued work, in random legal order, until `done()`; on other threads than the main one waits for it.
  void run_until(Lock& lock, const std::function<bool()>& done);
  /// One attempt at each stream until some work is done. False where nothing could be.
  bool step(Lock& lock);
  bool is_main_thread() const { return std::this_thread::get_id() == main_thread_; }
  bool all_idle() const;
  /// Graphs count what they do inside one poll.
  std::uint64_t work_done = 0;  // the main thread's alone

  // Captures (cudart_graphs.cpp).
  /// True where a call that synchronises or allocates is forbidden to this thread by a capture in progress.
  bool capture_forbids();
  std::vector<std::shared_ptr<Capture>> captures;

  // Memory (cudart_memory.cpp), by address.
  std::map<std::uintptr_t, Allocation> allocations;
  std::size_t memory_limit = 0;
  std::size_t memory_used = 0;
  std::size_t memory_peak = 0;
  std::size_t pool_used = 0;
  std::size_t pool_peak = 0;

 private:
  CUstream_st* choose(std::set<CUstream_st*>& tried);

  std::thread::id main_thread_;
  bool running_ = false;
};

Runtime& runtime();

/// Remembers a failure for cudaGetLastError and passes it on.
cudaError_t result(cudaError_t status);

[[noreturn]] void runtime_misuse(const char* message);

}  // namespace simt
