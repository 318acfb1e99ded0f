#include "tests/simt/executor.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "tests/simt/device_builtins.h"
#include "tests/simt/fiber.h"
#include "tests/simt/sanitizers.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace simt {
namespace {

constexpr unsigned max_threads = 1024;
constexpr std::size_t max_shared_bytes = 227 * 1024;  // sm_90
constexpr std::size_t shared_guard_bytes = 256;
constexpr unsigned char shared_guard = 0xa5;

enum class State : std::uint8_t { runnable, at_block_barrier, at_warp_operation, exited };

struct Thread {
  uint3 index{};
  int warp = 0;
  int lane = 0;
  State state = State::runnable;
  Fiber* fiber = nullptr;  // null before the thread's first instruction
  Where where;             // of the operation it waits in
  AsyncCopies async;
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

class Rng {  // xorshift64
 public:
  explicit Rng(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  std::uint64_t operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  unsigned below(unsigned bound) { return static_cast<unsigned>(((*this)() >> 32) * bound >> 32); }

 private:
  std::uint64_t state_;
};

/// The one processor. Which of its threads runs is a state of the machine, as threadIdx is: hence the one object.
class Multiprocessor {
 public:
  Multiprocessor();
  void run(const Grid& grid, void (*body)(const void*), const void* argument);
  void block_barrier(Where where);
  void warp_operation(unsigned mask, void* operand, CompleteWarp complete, Where where);
  [[noreturn]] void fail(const char* message, Where where);

  Order order = Order::forward;
  Rng rng{0};
  std::uint64_t switches = 0;
  Thread* current = nullptr;
  unsigned char* shared = nullptr;

 private:
  static void fiber_main();
  void prepare(const Grid& grid);
  void run_block();
  void check_shared_guard();
  void exit_current();
  Thread* pick();
  void make_ready(int warp, unsigned lanes);
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
  std::size_t shared_bytes_ = 0;
  void (*body_)(const void*) = nullptr;
  const void* argument_ = nullptr;
  char start_clock_ = 0, end_clock_ = 0, barrier_clock_[2] = {};
};

Multiprocessor& machine() {
  static Multiprocessor instance;
  return instance;
}

Multiprocessor::Multiprocessor() : threads_(max_threads) {
  const char* named = std::getenv("SIMT_ORDER");
  const char* seed = std::getenv("SIMT_SEED");
  if (named != nullptr) {
    const std::string name = named;
    if (name != "forward" && name != "reverse" && name != "random") {
      std::fprintf(stderr, "simt: SIMT_ORDER=%s; choose forward, reverse or random\n", named);
      std::abort();
    }
    order = name == "forward" ? Order::forward : name == "reverse" ? Order::reverse : Order::random;
  }
  if (seed != nullptr) rng = Rng(std::strtoull(seed, nullptr, 10));
  if (posix_memalign(reinterpret_cast<void**>(&shared), 128, max_shared_bytes + shared_guard_bytes) != 0)
    std::abort();
}

// One fiber runs thread after thread as long as these never wait: a kernel without barriers costs no switch. Under
// ThreadSanitizer each thread has its own, since what one fiber does counts as ordered.
void Multiprocessor::fiber_main() {
  Fiber::entered();
  Multiprocessor& m = machine();
  for (;;) {
    tsan_acquire(&m.start_clock_);
    m.body_(m.argument_);
    tsan_release(&m.end_clock_);
    Fiber* self = m.current->fiber;
    m.exit_current();
    Thread* next = m.pick();
    if (next != nullptr && next->fiber == nullptr && !thread_sanitizer) {
      m.current = next;
      next->fiber = self;
      threadIdx = next->index;
      continue;
    }
    m.idle_fibers_.push_back(self);
    if (next == nullptr) {
      ++m.switches;
      self->switch_to(m.scheduler_);
    } else {
      m.resume(*self, *next);
    }
  }
}

void Multiprocessor::resume(Fiber& from, Thread& next) {
  if (next.fiber == nullptr) {
    if (thread_sanitizer) {
      const auto index = static_cast<std::size_t>(next.warp * 32 + next.lane);
      while (fibers_.size() <= index) fibers_.push_back(std::make_unique<Fiber>(fiber_main, fibers_.size()));
      next.fiber = fibers_[index].get();
    } else {
      if (idle_fibers_.empty()) {
        fibers_.push_back(std::make_unique<Fiber>(fiber_main, fibers_.size()));
        idle_fibers_.push_back(fibers_.back().get());
      }
      next.fiber = idle_fibers_.back();
      idle_fibers_.pop_back();
    }
  }
  current = &next;
  threadIdx = next.index;
  if (next.fiber == &from) return;
  ++switches;
  from.switch_to(*next.fiber);
}

void Multiprocessor::make_ready(int warp, unsigned lanes) {
  warps_[warp].ready |= lanes;
  ready_warps_ |= lanes != 0 ? 1u << warp : 0u;
}

unsigned nth_bit(unsigned bits, unsigned n) {
  while (n-- > 0) bits &= bits - 1;
  return static_cast<unsigned>(std::countr_zero(bits));
}

// Takes a thread that can run; null where all have exited.
Thread* Multiprocessor::pick() {
  if (ready_warps_ == 0) {
    if (live_ == 0) return nullptr;
    report_deadlock();
  }
  unsigned warp = 0, lane = 0;
  if (order == Order::random) {
    warp = nth_bit(ready_warps_, rng.below(static_cast<unsigned>(std::popcount(ready_warps_))));
    lane = nth_bit(warps_[warp].ready, rng.below(static_cast<unsigned>(std::popcount(warps_[warp].ready))));
  } else if (order == Order::forward) {
    warp = static_cast<unsigned>(std::countr_zero(ready_warps_));
    lane = static_cast<unsigned>(std::countr_zero(warps_[warp].ready));
  } else {
    warp = 31u - static_cast<unsigned>(std::countl_zero(ready_warps_));
    lane = 31u - static_cast<unsigned>(std::countl_zero(warps_[warp].ready));
  }
  Warp& w = warps_[warp];
  w.ready &= ~(1u << lane);
  if (w.ready == 0) ready_warps_ &= ~(1u << warp);
  Thread& thread = threads_[warp * 32 + lane];
  thread.state = State::runnable;
  return &thread;
}

void Multiprocessor::run_next() {
  Fiber& self = *current->fiber;
  Thread* next = pick();
  resume(self, *next);
}

void Multiprocessor::exit_current() {
  Thread& thread = *current;
  Warp& w = warps_[thread.warp];
  thread.state = State::exited;
  thread.async.copies.clear();
  thread.async.group_ends.clear();
  w.live &= ~(1u << thread.lane);
  --live_;
  // Those who wait for everybody still there may have waited for this thread alone.
  for (unsigned waiting = w.arrived; waiting != 0; waiting &= waiting - 1) {
    const int lane = std::countr_zero(waiting);
    const unsigned needed = w.mask[lane] & w.live;
    if ((w.arrived & needed) != needed) continue;
    const Where where = threads_[static_cast<std::size_t>(thread.warp * 32 + lane)].where;
    finish_operation(thread.warp, needed, where);
    waiting &= ~needed | (1u << lane);
  }
  if (live_ > 0 && at_barrier_ == live_) release_block();
}

void Multiprocessor::release_block() {
  at_barrier_ = 0;
  ++barriers_;
  for (unsigned warp = 0; warp < (count_ + 31) / 32; ++warp)
    make_ready(static_cast<int>(warp), warps_[warp].live);
}

void Multiprocessor::block_barrier(Where where) {
  Thread& thread = *current;
  thread.where = where;
  thread.state = State::at_block_barrier;
  if (at_barrier_ == 0) barrier_where_ = where;
  if (barrier_where_.line() != where.line() ||
      std::strcmp(barrier_where_.file_name(), where.file_name()) != 0) {
    const std::string message = "barrier divergence: other threads of the block wait at " +
                                std::string(barrier_where_.file_name()) + ":" +
                                std::to_string(barrier_where_.line());
    fail(message.c_str(), where);
  }
  const unsigned generation = barriers_ & 1;
  tsan_release(&barrier_clock_[generation]);
  if (++at_barrier_ == live_) release_block();
  run_next();
  tsan_acquire(&barrier_clock_[generation]);
}

void Multiprocessor::finish_operation(int warp, unsigned lanes, Where where) {
  Warp& w = warps_[warp];
  const int first = std::countr_zero(lanes);
  void* operands[32];
  for (int lane = 0; lane < 32; ++lane) {
    const bool takes_part = (lanes >> lane & 1) != 0;
    operands[lane] = takes_part ? w.operand[lane] : nullptr;
    if (takes_part && (w.mask[lane] & w.live) != lanes)
      fail("lanes of one warp operation give different masks", where);
    if (takes_part && w.complete[lane] != w.complete[first])
      fail("lanes meet in different warp operations", where);
  }
  if (w.complete[first] == nullptr) {
    ++w.barriers;
  } else {
    w.complete[first](operands, lanes);
  }
  w.arrived &= ~lanes;
  make_ready(warp, lanes);
}

void Multiprocessor::warp_operation(unsigned mask, void* operand, CompleteWarp complete, Where where) {
  Thread& thread = *current;
  Warp& w = warps_[thread.warp];
  const unsigned self = 1u << thread.lane;
  if ((mask & self) == 0) fail("the mask of a warp operation leaves out the calling lane", where);
  thread.where = where;
  thread.state = State::at_warp_operation;
  w.mask[thread.lane] = mask;
  w.operand[thread.lane] = operand;
  w.complete[thread.lane] = complete;
  w.arrived |= self;
  // Barriers of the whole warp order memory exactly: two clocks in turn, or a lane that hurries ahead to the next
  // barrier would seem ordered before those that still leave this one. Part masks use both, which may hide a race.
  const bool orders = complete == nullptr;
  const unsigned needed = mask & w.live;
  const unsigned generation = w.barriers & 1;
  const bool whole = needed == w.live;
  if (orders) {
    tsan_release(&w.clock[generation]);
    if (!whole) tsan_release(&w.clock[generation ^ 1]);
  }
  if ((w.arrived & needed) == needed) finish_operation(thread.warp, needed, where);
  if (order == Order::random || (w.ready & self) == 0) {
    run_next();
  } else {  // the last to arrive goes on at once
    w.ready &= ~self;
    if (w.ready == 0) ready_warps_ &= ~(1u << thread.warp);
    thread.state = State::runnable;
  }
  if (orders) {
    tsan_acquire(&w.clock[generation]);
    if (!whole) tsan_acquire(&w.clock[generation ^ 1]);
  }
}

void Multiprocessor::prepare(const Grid& grid) {
  gridDim = grid.grid;
  blockDim = grid.block;
  launch_where_ = grid.where;
  shared_bytes_ = grid.shared_bytes;
  count_ = grid.block.x * grid.block.y * grid.block.z;
  for (unsigned i = 0; i < count_; ++i) {
    Thread& thread = threads_[i];
    thread.index = {i % grid.block.x, i / grid.block.x % grid.block.y, i / (grid.block.x * grid.block.y)};
    thread.warp = static_cast<int>(i / 32);
    thread.lane = static_cast<int>(i % 32);
  }
}

void Multiprocessor::run_block() {
  live_ = count_;
  at_barrier_ = 0;
  ready_warps_ = 0;
  for (unsigned i = 0; i < count_; ++i) {
    threads_[i].state = State::runnable;
    threads_[i].fiber = nullptr;
  }
  for (unsigned warp = 0; warp < (count_ + 31) / 32; ++warp) {
    const unsigned lanes = std::min(32u, count_ - warp * 32);
    warps_[warp].live = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
    warps_[warp].ready = warps_[warp].arrived = 0;
    make_ready(static_cast<int>(warp), warps_[warp].live);
  }
  // Uninitialised shared memory reads as NaN (or -1), as what a block leaves behind is nobody's to use.
  std::memset(shared, 0xff, shared_bytes_);
  std::memset(shared + shared_bytes_, shared_guard, shared_guard_bytes);
  tsan_release(&start_clock_);
  resume(scheduler_, *pick());
  tsan_acquire(&end_clock_);
  check_shared_guard();
}

void Multiprocessor::check_shared_guard() {
  for (std::size_t i = 0; i < shared_guard_bytes; ++i) {
    if (shared[shared_bytes_ + i] == shared_guard) continue;
    const std::string message = "written " + std::to_string(i) +
                                " bytes past the end of dynamic shared memory (" +
                                std::to_string(shared_bytes_) + " bytes)";
    fail(message.c_str(), launch_where_);
  }
}

void Multiprocessor::run(const Grid& grid, void (*body)(const void*), const void* argument) {
  prepare(grid);
  body_ = body;
  argument_ = argument;
  const std::uint64_t blocks = std::uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  // Random: a full-period walk with a stride prime to the count; storing a permutation of 2^31 blocks would not fit.
  std::uint64_t stride = 1, block = order == Order::reverse ? blocks - 1 : 0;
  if (order == Order::reverse) stride = blocks - 1 == 0 ? 1 : blocks - 1;
  if (order == Order::random) {
    block = rng() % blocks;
    do stride = rng() % blocks + 1;
    while (std::gcd(stride, blocks) != 1);
  }
  for (std::uint64_t i = 0; i < blocks; ++i, block = (block + stride) % blocks) {
    blockIdx = {static_cast<unsigned>(block % grid.grid.x),
                static_cast<unsigned>(block / grid.grid.x % grid.grid.y),
                static_cast<unsigned>(block / (std::uint64_t{grid.grid.x} * grid.grid.y))};
    run_block();
  }
  current = nullptr;
}

void Multiprocessor::fail(const char* message, Where where) {
  std::fprintf(stderr, "simt: %s:%u: %s\n", where.file_name(), where.line(), message);
  std::fprintf(stderr, "simt: in block (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z);
  if (current != nullptr) std::fprintf(stderr, ", thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
  std::fprintf(stderr, " of the kernel launched at %s:%u\n", launch_where_.file_name(), launch_where_.line());
  std::abort();
}

void Multiprocessor::report_deadlock() {
  constexpr int lines = 8;
  int printed = 0;
  unsigned in_barrier = 0, in_operation = 0;
  for (unsigned i = 0; i < count_; ++i) {
    in_barrier += threads_[i].state == State::at_block_barrier;
    in_operation += threads_[i].state == State::at_warp_operation;
  }
  std::fprintf(stderr,
               "simt: deadlock in block (%u,%u,%u) of the kernel launched at %s:%u: of %u threads %u wait in "
               "__syncthreads, %u in a warp operation, %u have exited\n",
               blockIdx.x, blockIdx.y, blockIdx.z, launch_where_.file_name(), launch_where_.line(), count_,
               in_barrier, in_operation, count_ - live_);
  const Thread* previous = nullptr;
  for (unsigned i = 0; i < count_ && printed < lines; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == State::exited) continue;
    const bool same_place = previous != nullptr && previous->state == thread.state &&
                            previous->where.line() == thread.where.line();
    previous = &thread;
    if (same_place) continue;
    std::fprintf(stderr, "simt:   from thread (%u,%u,%u) on: %s at %s:%u\n", thread.index.x, thread.index.y,
                 thread.index.z, thread.state == State::at_block_barrier ? "__syncthreads" : "warp operation",
                 thread.where.file_name(), thread.where.line());
    ++printed;
  }
  std::abort();
}

}  // namespace

void set_order(Order order, std::uint64_t seed) {
  machine().order = order;
  machine().rng = Rng(seed);
}
Order order() {
  return machine().order;
}
std::uint64_t switches() {
  return machine().switches;
}

const char* invalid_shape(const Grid& grid) {
  const dim3 &g = grid.grid, &b = grid.block;
  if (g.x == 0 || g.y == 0 || g.z == 0) return "empty grid";
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) return "grid beyond (2^31 - 1, 65535, 65535)";
  if (b.x == 0 || b.y == 0 || b.z == 0) return "empty block";
  if (std::uint64_t{b.x} * b.y * b.z > max_threads || b.z > 64) return "block of more than 1024 threads";
  if (grid.shared_bytes > max_shared_bytes) return "more than 227 KiB of shared memory";
  return nullptr;
}

void run_grid(const Grid& grid, void (*body)(const void*), const void* argument) {
  machine().run(grid, body, argument);
}

void block_barrier(Where where) {
  machine().block_barrier(where);
}
void warp_operation(unsigned mask, void* operand, CompleteWarp complete, Where where) {
  machine().warp_operation(mask, operand, complete, where);
}
int lane() {
  return machine().current->lane;
}
unsigned char* dynamic_shared_memory() {
  return machine().shared;
}
void fail(const char* message, Where where) {
  machine().fail(message, where);
}
AsyncCopies& async_copies() {
  return machine().current->async;
}

}  // namespace simt
