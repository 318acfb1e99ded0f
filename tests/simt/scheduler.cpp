// Which thread of the block runs next, and what happens where threads meet.
#include <bit>
#include <cstring>
#include <string>

#include "tests/simt/async_units.h"
#include "tests/simt/multiprocessor.h"
#include "tests/simt/sanitizers.h"

namespace simt {
namespace {

/// The first set bit from a place on, around the end. Not uniform, but every one is drawn, without a loop.
unsigned bit_from(unsigned bits, unsigned place) {
  return (static_cast<unsigned>(std::countr_zero(std::rotr(bits, static_cast<int>(place % 32)))) + place) % 32;
}

bool same_file(const Where& a, const Where& b) {
  return a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0;
}

}  // namespace

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
    if (!thread_sanitizer) m.idle_fibers_.push_back(self);
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

// Takes a thread that can run; null where all have exited.
Thread* Multiprocessor::pick() {
  AsyncUnits& units = async_units();
  if (order == Order::random && units.under_way() && rng() % 16 == 0) units.deliver();
  if (ready_warps_ == 0) {
    if (live_ == 0) return nullptr;
    while (ready_warps_ == 0) {  // copies arrive as late as can be
      if (!units.deliver()) report_deadlock();
    }
  }
  unsigned warp = 0, lane = 0;
  if (order == Order::random) {
    const std::uint64_t draw = rng();
    warp = bit_from(ready_warps_, static_cast<unsigned>(draw >> 32));
    lane = bit_from(warps_[warp].ready, static_cast<unsigned>(draw >> 40));
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

void Multiprocessor::suspend(State state, Where where) {
  current->where = where;
  current->state = state;
  run_next();
}

void Multiprocessor::run_next() {
  Fiber& self = *current->fiber;
  Thread* next = pick();
  resume(self, *next);
}

void Multiprocessor::exit_current() {
  async_units().exit_thread();
  Thread& thread = *current;
  // Its end would not say that the kernels in front have ended, which later ones take it to.
  check_waited("this kernel's thread ends", launch_where_);
  Warp& w = warps_[thread.warp];
  thread.state = State::exited;
  thread.async.copies.clear();
  thread.async.group_ends.clear();
  w.live &= ~(1u << thread.lane);
  --live_;
  if (w.live == 0) warp_met(thread.warp);
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
  async_units().block_met();
  for (unsigned warp = 0; warp < (count_ + 31) / 32; ++warp) {
    warp_met(static_cast<int>(warp));
    make_ready(static_cast<int>(warp), warps_[warp].live);
  }
}

void Multiprocessor::block_barrier(Where where) {
  Thread& thread = *current;
  thread.where = where;
  thread.state = State::at_block_barrier;
  if (at_barrier_ == 0) barrier_where_ = where;
  if (barrier_where_.line() != where.line() || !same_file(barrier_where_, where)) {
    fail("barrier divergence: other threads of the block wait at " + std::string(barrier_where_.file_name()) + ":" +
             std::to_string(barrier_where_.line()),
         where);
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
    if (takes_part && (w.mask[lane] & w.live) != lanes) fail("lanes of one warp operation give different masks", where);
    if (takes_part && w.complete[lane] != w.complete[first]) fail("lanes meet in different warp operations", where);
  }
  if (w.complete[first] == nullptr) {
    ++w.barriers;
  } else {
    w.complete[first](operands, lanes);
  }
  if (lanes == w.live) warp_met(warp);
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

void block_barrier(Where where) {
  machine().block_barrier(where);
}

void warp_operation(unsigned mask, void* operand, CompleteWarp complete, Where where) {
  machine().warp_operation(mask, operand, complete, where);
}

}  // namespace simt
