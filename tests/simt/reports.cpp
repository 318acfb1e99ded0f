// The executor's last words.
#include <cstdio>
#include <cstdlib>

#include "tests/simt/async_units.h"
#include "tests/simt/multiprocessor.h"

namespace simt {
namespace {

std::string waits_in(const Thread& thread, unsigned index) {
  switch (thread.state) {
    case State::at_block_barrier:
      return "__syncthreads";
    case State::at_warpgroup:
      return "warpgroup operation";
    case State::at_mbarrier:
    case State::at_named_barrier:
      return async_units().describe(index);
    default:
      return "warp operation";
  }
}

}  // namespace

void Multiprocessor::fail(const std::string& message, Where where) {
  fail(message, where.file_name() + (":" + std::to_string(where.line())));
}

void Multiprocessor::fail(const std::string& message, const std::string& where) {
  std::fprintf(stderr, "simt: %s: %s\n", where.c_str(), message.c_str());
  std::fprintf(stderr, "simt: in block (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z);
  if (current != nullptr) std::fprintf(stderr, ", thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
  std::fprintf(stderr, " of the kernel launched at %s:%u\n", launch_where_.file_name(), launch_where_.line());
  std::abort();
}

void Multiprocessor::check_waited(const char* what, Where where) {
  if (!current->waited) fail(std::string(what) + " before GridDependency::wait", where);
}

void Multiprocessor::report_deadlock() {
  constexpr int lines = 8;
  int printed = 0;
  unsigned in_barrier = 0, in_operation = 0, elsewhere = 0;
  for (unsigned i = 0; i < count_; ++i) {
    in_barrier += threads_[i].state == State::at_block_barrier;
    in_operation += threads_[i].state == State::at_warp_operation;
    elsewhere += threads_[i].state == State::at_warpgroup || threads_[i].state == State::at_mbarrier ||
                 threads_[i].state == State::at_named_barrier;
  }
  std::fprintf(stderr,
               "simt: deadlock in block (%u,%u,%u) of the kernel launched at %s:%u: of %u threads %u wait in "
               "__syncthreads, %u in a warp operation, %u in other barriers and warpgroup operations, %u have exited\n",
               blockIdx.x, blockIdx.y, blockIdx.z, launch_where_.file_name(), launch_where_.line(), count_, in_barrier,
               in_operation, elsewhere, count_ - live_);
  const Thread* previous = nullptr;
  for (unsigned i = 0; i < count_ && printed < lines; ++i) {
    const Thread& thread = threads_[i];
    if (thread.state == State::exited) continue;
    const bool same_place =
        previous != nullptr && previous->state == thread.state && previous->where.line() == thread.where.line();
    previous = &thread;
    if (same_place) continue;
    std::fprintf(stderr, "simt:   from thread (%u,%u,%u) on: %s at %s:%u\n", thread.index.x, thread.index.y,
                 thread.index.z, waits_in(thread, i).c_str(), thread.where.file_name(), thread.where.line());
    ++printed;
  }
  std::abort();
}

}  // namespace simt
