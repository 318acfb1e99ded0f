#include "tests/simt/executor.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>

#include "tests/simt/async_units.h"
#include "tests/simt/multiprocessor.h"
#include "tests/simt/sanitizers.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace simt {
namespace {

constexpr std::size_t shared_guard_bytes = 256;
constexpr unsigned char shared_guard = 0xa5;
constexpr std::size_t shared_room = 227 * 1024 + shared_guard_bytes;  // sm_90, the most of any

}  // namespace

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
  if (posix_memalign(reinterpret_cast<void**>(&shared), 128, shared_room) != 0) std::abort();
}

void Multiprocessor::prepare(const Grid& grid) {
  gridDim = grid.grid;
  blockDim = grid.block;
  launch_where_ = grid.where;
  must_wait_ = grid.waits;
  shared_bytes_ = grid.shared_bytes;
  count_ = grid.block.x * grid.block.y * grid.block.z;
  for (unsigned i = 0; i < count_; ++i) {
    Thread& thread = threads_[i];
    thread.index = {i % grid.block.x, i / grid.block.x % grid.block.y, i / (grid.block.x * grid.block.y)};
    thread.warp = static_cast<int>(i / 32);
    thread.lane = static_cast<int>(i % 32);
  }
  // Others make them as they need them; a vector that grew on a fiber would be a race in ThreadSanitizer's eyes.
  while (thread_sanitizer && fibers_.size() < count_) {
    fibers_.push_back(std::make_unique<Fiber>(fiber_main, fibers_.size()));
  }
}

void Multiprocessor::run_block() {
  live_ = count_;
  at_barrier_ = 0;
  ready_warps_ = 0;
  for (unsigned i = 0; i < count_; ++i) {
    threads_[i].state = State::runnable;
    threads_[i].fiber = nullptr;
    threads_[i].waited = !must_wait_;
  }
  for (unsigned warp = 0; warp < (count_ + 31) / 32; ++warp) {
    const unsigned lanes = std::min(32u, count_ - warp * 32);
    warps_[warp].live = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
    warps_[warp].ready = warps_[warp].arrived = 0;
    make_ready(static_cast<int>(warp), warps_[warp].live);
  }
  // Uninitialised shared memory reads as NaN (or -1), as what a block leaves behind is nobody's to use.
  guard_shared();
  std::memset(shared, 0xff, shared_bytes_);
  async_units().begin_block(shared, shared_bytes_, count_);
  tsan_release(&start_clock_);
  resume(scheduler_, *pick());
  tsan_acquire(&end_clock_);
  current = nullptr;
  async_units().end_block(launch_where_);
  check_shared_guard();
}

void Multiprocessor::guard_shared() {
  if (address_sanitizer) {
    asan_unpoison(shared, shared_bytes_);
    asan_poison(shared + shared_bytes_, shared_room - shared_bytes_);
  } else {
    std::memset(shared + shared_bytes_, shared_guard, shared_guard_bytes);
  }
}

void Multiprocessor::check_shared_guard() {
  if (address_sanitizer) return;
  for (std::size_t i = 0; i < shared_guard_bytes; ++i) {
    if (shared[shared_bytes_ + i] == shared_guard) continue;
    current = nullptr;  // any of them
    fail("written at byte " + std::to_string(i) + " past the end of dynamic shared memory (" +
             std::to_string(shared_bytes_) + " bytes)",
         launch_where_);
  }
}

void Multiprocessor::run(const Grid& grid, void (*body)(const void*), const void* argument) {
  prepare(grid);
  if (access_observer != nullptr) access_observer->grid_begins(grid.kernel, shared, shared_bytes_);
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
    blockIdx = {static_cast<unsigned>(block % grid.grid.x), static_cast<unsigned>(block / grid.grid.x % grid.grid.y),
                static_cast<unsigned>(block / (std::uint64_t{grid.grid.x} * grid.grid.y))};
    run_block();
  }
  current = nullptr;
}

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

namespace {
Launches launched;
}
Launches launches() {
  return launched;
}
void count_launch(bool dependent) {
  ++launched.all;
  launched.dependent += dependent;
}

bool one_fiber_per_thread() {
  return thread_sanitizer;
}

const char* invalid_shape(const Grid& grid) {
  const dim3 &g = grid.grid, &b = grid.block;
  if (g.x == 0 || g.y == 0 || g.z == 0) return "empty grid";
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) return "grid beyond (2^31 - 1, 65535, 65535)";
  if (b.x == 0 || b.y == 0 || b.z == 0) return "empty block";
  if (std::uint64_t{b.x} * b.y * b.z > max_threads || b.z > 64) return "block of more than 1024 threads";
  if (grid.shared_bytes > max_shared_bytes()) return "more shared memory than a block may have";
  constexpr std::size_t unasked = 48 * 1024, most_static = 8 * 1024;  // a kernel's own is not known here
  if (!grid.permitted && grid.shared_bytes + most_static > unasked)
    return "more than 48 KiB of shared memory that the launch did not ask for";
  return nullptr;
}

void run_grid(const Grid& grid, void (*body)(const void*), const void* argument) {
  machine().run(grid, body, argument);
}

unsigned char* dynamic_shared_memory() {
  return machine().shared;
}
void fail(const char* message, Where where) {
  machine().fail(message, where);
}
void grid_dependency_wait() {
  machine().current->waited = true;
}
AsyncCopies& async_copies() {
  return machine().current->async;
}

}  // namespace simt
