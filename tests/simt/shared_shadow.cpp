// What asynchronous units may read and overwrite of shared memory, and who knows of it.
#include <algorithm>
#include <cstring>

#include "tests/simt/async_units.h"
#include "tests/simt/multiprocessor.h"
#include "tests/simt/sanitizers.h"

namespace simt {

void AsyncUnits::fail_at(const std::string& message, Where where) {
  machine().fail(message, where);
}
unsigned AsyncUnits::warp() {
  return static_cast<unsigned>(machine().current->warp);
}
unsigned AsyncUnits::thread() {
  return static_cast<unsigned>(machine().current->warp * 32 + machine().current->lane);
}
Knowledge AsyncUnits::all_warps() {
  return Knowledge(0xffffffffu);
}

// Blocks that use none of this cost nothing.
void AsyncUnits::begin_block(unsigned char* shared, std::size_t bytes, unsigned threads) {
  shared_ = shared;
  bytes_ = static_cast<unsigned>(bytes);
  threads_ = threads;
  used_ = false;
}

void AsyncUnits::prepare_shadows() {
  if (used_) return;
  used_ = true;
  // The window begins at 1 KiB, which the chip keeps for itself; that a kernel's memory begins at a multiple of more than
  // 128 is nothing to rely on.
  const Order order = machine().order;
  base_ = 1024 + 128 * (order == Order::forward ? 1 : order == Order::reverse ? 6 : 1 + machine().rng() % 7);
  const std::size_t chunks = (bytes_ + chunk_bytes - 1) / chunk_bytes;
  async_view_.assign(chunks * chunk_bytes, 0xff);  // as the block found it
  load_of_chunk_.assign(chunks, -1);
  fence_of_chunk_.assign(chunks, -1);
  readers_of_chunk_.assign(chunks, 0);
  loads_.clear();
  fences_.clear();
  mbarriers_.clear();
  mbarrier_at_.clear();
  copies_.clear();
  stores_.clear();
  for (NamedBarrier& barrier : named_) barrier = {};
  for (Warpgroup& group : groups_) {
    group = {};
    group.registers = static_cast<int>(std::min(65536 / threads_ / 8 * 8, 256u));
  }
}

void AsyncUnits::end_block(Where where) {
  const TsanBlind blind;
  if (!used_) return;
  for (const Load& load : loads_) {
    if (load.chunks > 0 && (load.landed & all_warps()).none()) {
      fail_at("the block ended without a wait for this bulk copy", load.where);
    }
  }
  unsigned registers = 0;
  for (unsigned i = 0; i < threads_ / 128; ++i) registers += 128 * static_cast<unsigned>(groups_[i].registers);
  if (registers > 65536 / threads_ / 8 * 8 * threads_) {
    fail_at("setmaxnreg: the warpgroups hold " + std::to_string(registers) + " registers together, the launch gave " +
                std::to_string(65536 / threads_ / 8 * 8 * threads_),
            where);
  }
  used_ = false;
}

void AsyncUnits::exit_thread() {
  const TsanBlind blind;
  if (!used_) return;
  if (thread() / 128 < max_warpgroups && !groups_[thread() / 128].products.empty()) {
    fail_at("the thread ended while a wgmma of its warpgroup was in flight", groups_[thread() / 128].products[0].where);
  }
  for (const Copy& copy : copies_) {
    if (copy.load < 0 && copy.thread == thread())
      fail_at("the thread ended with bulk stores not waited for", copy.where);
  }
}

unsigned AsyncUnits::address(const void* pointer, Where where) {
  const TsanBlind blind;
  prepare_shadows();
  const auto offset = static_cast<const unsigned char*>(pointer) - shared_;
  if (offset < 0 || offset >= static_cast<std::ptrdiff_t>(bytes_)) {
    fail_at("not an address of dynamic shared memory, the only one that asynchronous units are modelled for", where);
  }
  return base_ + static_cast<unsigned>(offset);
}

unsigned AsyncUnits::offset_of(unsigned address, unsigned bytes, const char* what, Where where) const {
  if (address < base_ || address - base_ + bytes > bytes_) {
    fail_at(std::string(what) + ": beyond dynamic shared memory (" + std::to_string(bytes_) + " bytes)", where);
  }
  return address - base_;
}

template <class Visit>
void AsyncUnits::for_each_knowledge(Visit visit) {
  for (Mbarrier& barrier : mbarriers_) visit(barrier.known);
  for (Fence& fence : fences_) visit(fence.known);
  for (Load& load : loads_) {
    if (load.chunks == 0) continue;
    visit(load.landed);
    for (int g = 0; g < max_warpgroups; ++g) {
      if (load.was_read[g]) visit(load.read_done[g]);
    }
  }
}

void AsyncUnits::pass(std::size_t from, const Knowledge& to) {
  for_each_knowledge([&](Knowledge& known) {
    if (known.test(from)) known |= to;
  });
}

void AsyncUnits::block_met() {
  const TsanBlind blind;
  if (!used_) return;
  for_each_knowledge([&](Knowledge& known) {
    if ((known & all_warps()).any()) known |= all_warps();
  });
}

// Threads run one at a time from one meeting to the next, so what differs from the asynchronous view was stored by this
// thread or by others that have not come to their fence yet; theirs is taken along.
void AsyncUnits::fence_proxy() {
  const TsanBlind blind;
  prepare_shadows();
  int fence = -1;
  for (Fence& earlier : fences_) earlier.known.set(warp());
  for (unsigned chunk = 0; chunk < bytes_ / chunk_bytes; ++chunk) {
    if (std::memcmp(memory(chunk * chunk_bytes), async_view_.data() + chunk * chunk_bytes, chunk_bytes) == 0) continue;
    if (fence < 0) {
      const Knowledge mine = Knowledge().set(warp());
      fence = static_cast<int>(fences_.size()) - 1;
      if (fence < 0 || fences_.back().known != mine) {
        fences_.push_back({mine});
        ++fence;
      }
    }
    std::memcpy(async_view_.data() + chunk * chunk_bytes, memory(chunk * chunk_bytes), chunk_bytes);
    fence_of_chunk_[chunk] = fence;
  }
}

void AsyncUnits::check_read(unsigned chunk, const Knowledge& readers, const char* unit, Where where) {
  const auto fail_chunk = [&](const char* what) {
    fail_at(std::string(unit) + ": reads byte " + std::to_string(chunk * chunk_bytes) + " of shared memory, " + what,
            where);
  };
  if (load_of_chunk_[chunk] >= 0) {
    const Load& load = loads_[static_cast<std::size_t>(load_of_chunk_[chunk])];
    if (load.parts > 0) fail_chunk("which a bulk copy still fills");
    if ((load.landed & readers) != readers) fail_chunk("whose bulk copy these threads have not waited for");
  } else if (std::all_of(memory(chunk * chunk_bytes), memory(chunk * chunk_bytes) + chunk_bytes,
                         [](unsigned char byte) { return byte == 0xff; })) {
    fail_chunk("where nothing was written");
  }
  if (std::memcmp(memory(chunk * chunk_bytes), async_view_.data() + chunk * chunk_bytes, chunk_bytes) != 0) {
    fail_chunk("stored by threads without fence_proxy_async behind it");
  }
  if (fence_of_chunk_[chunk] < 0) return;
  if ((fences_[static_cast<std::size_t>(fence_of_chunk_[chunk])].known & readers) != readers) {
    fail_chunk("stored by threads: no barrier between fence_proxy_async and this read");
  }
}

void AsyncUnits::check_overwrite(unsigned chunk, Where where) {
  const auto fail_chunk = [&](const char* what) {
    fail_at("bulk load: overwrites byte " + std::to_string(chunk * chunk_bytes) + " of shared memory, " + what, where);
  };
  if (readers_of_chunk_[chunk] > 0) fail_chunk("which a wgmma in flight reads");
  if (std::memcmp(memory(chunk * chunk_bytes), async_view_.data() + chunk * chunk_bytes, chunk_bytes) != 0) {
    fail_chunk("stored by threads without fence_proxy_async behind it");
  }
  if (load_of_chunk_[chunk] < 0) return;
  const Load& load = loads_[static_cast<std::size_t>(load_of_chunk_[chunk])];
  if (load.parts > 0) fail_chunk("which another bulk copy still fills");
  for (int g = 0; g < max_warpgroups; ++g) {
    if (load.was_read[g] && !load.read_done[g].test(warp())) {
      fail_chunk("and does not know that the warpgroups which read it are done");
    }
  }
}

void AsyncUnits::own_chunk(unsigned chunk, int load) {
  int& owner = load_of_chunk_[chunk];
  if (owner >= 0) --loads_[static_cast<std::size_t>(owner)].chunks;
  owner = load;
  ++loads_[static_cast<std::size_t>(load)].chunks;
  fence_of_chunk_[chunk] = -1;
}

int AsyncUnits::new_load() {
  for (std::size_t i = 0; i < loads_.size(); ++i) {
    if (loads_[i].chunks > 0 || loads_[i].parts > 0) continue;
    loads_[i] = {};
    return static_cast<int>(i);
  }
  loads_.emplace_back();
  return static_cast<int>(loads_.size()) - 1;
}

}  // namespace simt
