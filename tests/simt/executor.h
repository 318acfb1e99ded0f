// The host executor: runs the blocks of a grid one after the other, each block as fibers, one per CUDA thread, that
// change places at barriers and warp operations only. Everything runs on the calling thread.
//
// This header is for tests and for the runtime stand-in; what kernels call is in device_builtins.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#include <builtin_types.h>  // dim3

namespace simt {

/// Who runs first among the threads that can run, and which block comes first. The environment's SIMT_ORDER (forward,
/// reverse, random) and SIMT_SEED choose until set_order is called. A correct kernel gives the same result in all.
enum class Order { forward, reverse, random };
void set_order(Order order, std::uint64_t seed = 0);
Order order();

/// One launch. `where` stands in messages.
struct Grid {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  std::source_location where;
  const void* kernel = nullptr;  // for access_counts.h
  bool permitted = true;         // more than 48 KiB of shared memory: asked for, as CUDA wants it
  bool waits = false;  // promises to wait for earlier kernels before it touches global memory (GridDependency)
};

/// The most dynamic shared memory of a block, by streams.h's compute_capability().
std::size_t max_shared_bytes();

/// Null where the shape can run, else what is wrong with it.
const char* invalid_shape(const Grid& grid);

/// Runs `body(argument)` once per thread. Aborts with a message that names block, thread and source line where threads
/// wait for each other for ever, where they disagree about a barrier or warp operation, and where dynamic shared
/// memory was written past its end.
void run_grid(const Grid& grid, void (*body)(const void*), const void* argument);

/// Launches since the program began: all, and those that could have begun before their predecessors' end.
struct Launches {
  std::uint64_t all = 0, dependent = 0;
};
Launches launches();
void count_launch(bool dependent);

/// Switches between threads since the program began: what a kernel costs here.
std::uint64_t switches();
/// True where ThreadSanitizer must see each thread on a fiber of its own.
bool one_fiber_per_thread();

}  // namespace simt
