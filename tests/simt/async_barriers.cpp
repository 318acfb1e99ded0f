// Barriers in shared memory that count threads and bytes (mbarrier), and the sixteen named ones.
#include <cstring>

#include "tests/simt/async_units.h"
#include "tests/simt/multiprocessor.h"
#include "tests/simt/sanitizers.h"

namespace simt {
namespace {

constexpr std::uint64_t barrier_mark = 0xba441e4a110c8edu;  // stands where the barrier is; a store over it shows

std::size_t named_place(int id) {
  return static_cast<std::size_t>(max_warps + id);
}
std::size_t mbarrier_place(std::size_t index) {
  return max_warps + max_named_barriers + index;
}

}  // namespace

std::string AsyncUnits::name_of(const Mbarrier& barrier) const {
  return "mbarrier at byte " + std::to_string(barrier.offset) + " of shared memory (phase " +
         std::to_string(barrier.phase) + ": " + std::to_string(barrier.pending) + " of " +
         std::to_string(barrier.count) + " arrivals and " + std::to_string(barrier.bytes) + " bytes to come)";
}

void AsyncUnits::init_barrier(void* barrier, unsigned count, Where where) {
  const TsanBlind blind;
  prepare_shadows();
  const unsigned offset = offset_of(address(barrier, where), 8, "mbarrier", where);
  if (offset % 8 != 0) fail_at("mbarrier_init: not aligned to 8 bytes", where);
  if (count == 0 || count >= 1u << 20) fail_at("mbarrier_init: 1 to 2^20 - 1 arrivals", where);
  if (mbarriers_.size() == max_mbarriers) fail_at("mbarrier_init: more barriers than the executor counts", where);
  if (!mbarrier_at_.emplace(offset, mbarriers_.size()).second) fail_at("mbarrier_init: there is one already", where);
  Mbarrier& b = mbarriers_.emplace_back();
  b.offset = offset;
  b.count = b.pending = count;
  b.where = where;
  b.known.set(warp());
  std::memcpy(memory(offset), &barrier_mark, sizeof(barrier_mark));
  std::memcpy(async_view_.data() + offset, &barrier_mark, sizeof(barrier_mark));
}

void AsyncUnits::fence_barrier_init() {
  for (Mbarrier& barrier : mbarriers_) barrier.fenced = true;
}

AsyncUnits::Mbarrier& AsyncUnits::find_barrier(const void* barrier, Where where) {
  prepare_shadows();
  const auto found = mbarrier_at_.find(offset_of(address(barrier, where), 8, "mbarrier", where));
  if (found == mbarrier_at_.end()) fail_at("no mbarrier was initialised there", where);
  Mbarrier& b = mbarriers_[found->second];
  if (!b.known.test(warp())) fail_at("mbarrier: no barrier between its mbarrier_init and this warp", where);
  if (std::memcmp(memory(b.offset), &barrier_mark, sizeof(barrier_mark)) != 0) {
    fail_at(name_of(b) + ": overwritten", where);
  }
  return b;
}

void AsyncUnits::wake(std::vector<unsigned>& waiting) {
  for (const unsigned i : waiting) machine().make_ready(static_cast<int>(i / 32), 1u << i % 32);
  waiting.clear();
}

void AsyncUnits::flip_if_complete(Mbarrier& b, Where where) {
  if (b.pending > 0) return;
  if (b.bytes < 0) fail_at(name_of(b) + ": more bytes arrived than were expected", where);
  if (b.bytes > 0) return;
  const auto index = static_cast<std::size_t>(&b - mbarriers_.data());
  for (Load& load : loads_) {
    if (load.chunks == 0 || load.parts > 0 || load.announced || load.barrier != static_cast<int>(index)) continue;
    load.announced = true;
    load.landed.set(mbarrier_place(index));
  }
  ++b.phase;
  b.pending = b.count;
  wake(b.waiting);
}

void AsyncUnits::arrive(void* barrier, unsigned expected_bytes, Where where) {
  const TsanBlind blind;
  Mbarrier& b = find_barrier(barrier, where);
  if (b.pending == 0) fail_at(name_of(b) + ": an arrival too many", where);
  pass(warp(), Knowledge().set(mbarrier_place(static_cast<std::size_t>(&b - mbarriers_.data()))));
  tsan_release(&b.clock[b.phase & 1]);
  b.bytes += expected_bytes;
  if (b.bytes >= 1 << 20) fail_at(name_of(b) + ": more than 2^20 - 1 bytes", where);
  --b.pending;
  flip_if_complete(b, where);
}

void AsyncUnits::wait(void* barrier, unsigned parity, Where where) {
  if (parity > 1) fail_at(name_of(find_barrier(barrier, where)) + ": a parity is 0 or 1", where);
  for (;;) {
    {
      const TsanBlind blind;
      Mbarrier& b = find_barrier(barrier, where);
      if ((b.phase & 1) != parity) {
        pass(mbarrier_place(static_cast<std::size_t>(&b - mbarriers_.data())), Knowledge().set(warp()));
        tsan_acquire(&b.clock[parity]);
        return;
      }
      b.waiting.push_back(thread());
    }
    machine().suspend(State::at_mbarrier, where);
  }
}

unsigned AsyncUnits::come_to_named_barrier(int id, int threads, Named kind, Where where) {
  const TsanBlind blind;
  prepare_shadows();
  if (id < 1 || id >= max_named_barriers) fail_at("named barrier: 1 to 15 (0 is __syncthreads)", where);
  if (threads <= 0 || threads % 32 != 0 || threads > static_cast<int>(threads_)) {
    fail_at("named barrier: whole warps of this block", where);
  }
  NamedBarrier& b = named_[id];
  if (b.arrived == 0) {
    b.threads = threads;
    b.where = where;
  }
  if (b.threads != threads) {
    fail_at("named barrier " + std::to_string(id) + ": " + std::to_string(threads) + " threads here, " +
                std::to_string(b.threads) + " at line " + std::to_string(b.where.line()),
            where);
  }
  const unsigned phase = b.phase & 1;
  pass(warp(), Knowledge().set(named_place(id)));
  tsan_release(&b.clock[phase]);
  if (kind == Named::sync) b.waiting.push_back(thread());
  if (++b.arrived == threads) {
    b.arrived = 0;
    ++b.phase;
    wake(b.waiting);
  }
  return phase;
}

void AsyncUnits::named_barrier(int id, int threads, Named kind, Where where) {
  const unsigned phase = come_to_named_barrier(id, threads, kind, where);
  if (kind == Named::arrive) return;
  machine().suspend(State::at_named_barrier, where);
  const TsanBlind blind;
  pass(named_place(id), Knowledge().set(warp()));
  tsan_acquire(&named_[id].clock[phase]);
}

std::string AsyncUnits::describe(unsigned thread) const {
  if (!used_) return {};
  for (const Mbarrier& b : mbarriers_) {
    for (const unsigned i : b.waiting) {
      if (i == thread) return name_of(b);
    }
  }
  for (int id = 1; id < max_named_barriers; ++id) {
    for (const unsigned i : named_[id].waiting) {
      if (i == thread) {
        return "named barrier " + std::to_string(id) + " (" + std::to_string(named_[id].arrived) + " of " +
               std::to_string(named_[id].threads) + " threads)";
      }
    }
  }
  return {};
}

}  // namespace simt
