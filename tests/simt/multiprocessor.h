// The executor's inside: one multiprocessor that runs one block at a time, and the scheduler of its threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/simt/device_builtins.h"
#include "tests/simt/executor.h"
#include "tests/simt/fiber.h"

namespace simt {

constexpr unsigned max_threads = 1024;

enum class State : std::uint8_t {
  runnable,
  at_block_barrier,
  at_warp_operation,
  at_warpgroup,
  at_mbarrier,
  at_named_barrier,
  exited
};

struct Thread {
  uint3 index{};
  int warp = 0;
  int lane = 0;
  State state = State::runnable;
  Fiber* fiber = nullptr;  // null before the thread's first instruction
  Where where;             // of the operation it waits in
  AsyncCopies async;
  bool waited = true;  // for the kernels in front, or need not
};

struct Warp {
  unsigned live = 0;     // not exited
  unsigned ready = 0;    // may run, the running one left out
  unsigned arrived = 0;  // wait in a warp operation
  unsigned mask[32];
  void* operand[32];
  CompleteWarp complete[32];
  unsigned barriers = 0;  // completed; ThreadSanitizer's clocks alternate
  char clock[2];
};

/// Who counts accesses (access_counts.h), where anybody does.
struct AccessObserver {
  void (*grid_begins)(const void* kernel, const unsigned char* shared, std::size_t shared_bytes);
  void (*warp_met)(int warp);  // all of its lanes that are left, or none are
};
inline const AccessObserver* access_observer = nullptr;

inline void warp_met(int warp) {
  if (access_observer != nullptr) access_observer->warp_met(warp);
}

class Rng {  // xorshift64
 public:
  explicit Rng(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  std::uint64_t operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }

 private:
  std::uint64_t state_;
};

class Multiprocessor {
 public:
  Multiprocessor();
  void run(const Grid& grid, void (*body)(const void*), const void* argument);
  void block_barrier(Where where);
  void warp_operation(unsigned mask, void* operand, CompleteWarp complete, Where where);
  /// The running thread waits in a way that async_units.h knows, until somebody calls make_ready with it.
  void suspend(State state, Where where);
  void make_ready(int warp, unsigned lanes);
  /// Aborts; the message names block, thread and launch too.
  [[noreturn]] void fail(const std::string& message, Where where);
  [[noreturn]] void fail(const std::string& message, const std::string& where);
  /// Aborts where the running thread must not yet touch global memory; `what` it does there.
  void check_waited(const char* what, Where where);

  Order order = Order::forward;
  Rng rng{0};
  std::uint64_t switches = 0;
  Thread* current = nullptr;
  unsigned char* shared = nullptr;

 private:
  static void fiber_main();
  void prepare(const Grid& grid);
  void run_block();
  void guard_shared();
  void check_shared_guard();
  void exit_current();
  Thread* pick();
  void run_next();
  void resume(Fiber& from, Thread& next);
  void release_block();
  void finish_operation(int warp, unsigned lanes, Where where);
  [[noreturn]] void report_deadlock();

  Fiber scheduler_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_fibers_;
  std::vector<Thread> threads_;
  Warp warps_[max_threads / 32];
  unsigned ready_warps_ = 0;
  int last_warp_ = 0;
  unsigned count_ = 0;
  unsigned live_ = 0;
  unsigned at_barrier_ = 0;
  Where barrier_where_;
  unsigned barriers_ = 0;
  Where launch_where_;
  bool must_wait_ = false;
  std::size_t shared_bytes_ = 0;
  void (*body_)(const void*) = nullptr;
  const void* argument_ = nullptr;
  char start_clock_ = 0, end_clock_ = 0, barrier_clock_[2] = {};
};

/// Which thread runs is a state of the program, as threadIdx is: hence the one object.
inline Multiprocessor& machine() {
  static Multiprocessor instance;
  return instance;
}

}  // namespace simt
