// What a kernel finds built in: its indices, barriers, warp operations. Masks name lanes as in CUDA; exited lanes are
// passed over. Each call knows its source line, for messages.
#pragma once

#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>
#include <vector>

#include <builtin_types.h>  // uint3, dim3

// Set at every change of threads. Kernels only read them.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
constexpr int warpSize = 32;

namespace simt {

using Where = std::source_location;

void block_barrier(Where where);

/// Runs for all lanes of a warp operation at once; operands of absent lanes are null.
using CompleteWarp = void (*)(void* const (&operands)[32], unsigned lanes);

/// Meets the other lanes of `mask`; the last to arrive runs complete(operands, lanes) for all. Lanes that come with
/// different functions or masks are an error. Null is __syncwarp: only that one orders memory (for ThreadSanitizer),
/// as CUDA promises nothing for the others.
void warp_operation(unsigned mask, void* operand, CompleteWarp complete, Where where);

inline int lane() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}
unsigned char* dynamic_shared_memory();
[[noreturn]] void fail(const char* message, Where where);
/// The running thread waits for the kernels in front of its own: it may touch global memory from here on.
void grid_dependency_wait();

/// A shuffle's operand: the result is the source lane's `value`, or all ones where that lane takes no part.
struct ShuffleOperand {
  std::uint64_t value;
  std::uint64_t result;
  int source;
};
void shuffle(ShuffleOperand& operand, unsigned mask, Where where);

struct VoteOperand {
  bool predicate;
  unsigned ballot;
  unsigned lanes;
};
VoteOperand vote(unsigned mask, bool predicate, Where where);

template <class T>
T shuffle_from(unsigned mask, T value, int source, Where where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  ShuffleOperand operand{0, 0, source};
  std::memcpy(&operand.value, &value, sizeof(T));
  shuffle(operand, mask, where);
  std::memcpy(&value, &operand.result, sizeof(T));
  return value;
}

/// cp.async of one thread: what is queued, and the group it belongs to.
struct AsyncCopy {
  void* shared;
  const void* global;
  bool valid;
};
struct AsyncCopies {
  std::vector<AsyncCopy> copies;
  std::vector<std::size_t> group_ends;
};
AsyncCopies& async_copies();

}  // namespace simt

inline void __syncthreads(simt::Where where = simt::Where::current()) {
  simt::block_barrier(where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Where where = simt::Where::current()) {
  simt::warp_operation(mask, nullptr, nullptr, where);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, simt::Where where = simt::Where::current()) {
  const int lane = simt::lane();
  return simt::shuffle_from(mask, value, (lane & ~(width - 1)) + (source & (width - 1)), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Where where = simt::Where::current()) {
  const int lane = simt::lane(), source = lane - static_cast<int>(delta);
  return simt::shuffle_from(mask, value, source < (lane & ~(width - 1)) ? lane : source, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, simt::Where where = simt::Where::current()) {
  const int lane = simt::lane(), source = lane + static_cast<int>(delta);
  return simt::shuffle_from(mask, value, source > (lane | (width - 1)) ? lane : source, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, simt::Where where = simt::Where::current()) {
  const int lane = simt::lane(), source = lane ^ lane_mask;
  return simt::shuffle_from(mask, value, source > (lane | (width - 1)) ? lane : source, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Where where = simt::Where::current()) {
  return simt::vote(mask, predicate != 0, where).ballot;
}
inline int __any_sync(unsigned mask, int predicate, simt::Where where = simt::Where::current()) {
  return simt::vote(mask, predicate != 0, where).ballot != 0;
}
inline int __all_sync(unsigned mask, int predicate, simt::Where where = simt::Where::current()) {
  const simt::VoteOperand result = simt::vote(mask, predicate != 0, where);
  return result.ballot == result.lanes;
}

inline void __threadfence() {}
inline void __threadfence_block() {}
