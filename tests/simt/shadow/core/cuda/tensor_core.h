// The host executor's version of core/cuda/tensor_core.h; the layouts are documented there.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "tests/simt/device_builtins.h"
#include "tests/simt/touch_memory.h"
#include "tests/simt/warp_operations.h"

namespace vqlm::cuda {

namespace detail {

inline void check_aligned(const void* address, const char* message, simt::Where where) {
  if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0) simt::fail(message, where);
}

// Each lane reads the row that it points at, so that the sanitizers see who reads what.
template <int matrices>
SIMT_UNCOUNTED void ldmatrix(unsigned (&r)[matrices], const void* shared_row, simt::Transposed transposed,
                             simt::Where where) {
  simt::LdmatrixOperand operand{};
  if (simt::lane() < matrices * 8) {
    check_aligned(shared_row, "ldmatrix: the row is not 16-byte aligned", where);
    if constexpr (simt::counts_accesses) {
      simt::touch_memory(__builtin_return_address(0), shared_row, 16, simt::Access::load);
    }
    std::memcpy(operand.row, shared_row, 16);
  }
  simt::ldmatrix(operand, transposed, where);
  std::memcpy(r, operand.registers, sizeof(r));
}

}  // namespace detail

inline void ldmatrix_x4(unsigned (&r)[4], const void* shared_row, simt::Where where = simt::Where::current()) {
  detail::ldmatrix(r, shared_row, simt::Transposed::no, where);
}
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* shared_row, simt::Where where = simt::Where::current()) {
  detail::ldmatrix(r, shared_row, simt::Transposed::yes, where);
}
inline void ldmatrix_x2(unsigned (&r)[2], const void* shared_row, simt::Where where = simt::Where::current()) {
  detail::ldmatrix(r, shared_row, simt::Transposed::no, where);
}
inline void ldmatrix_x2_trans(unsigned (&r)[2], const void* shared_row, simt::Where where = simt::Where::current()) {
  detail::ldmatrix(r, shared_row, simt::Transposed::yes, where);
}

inline void mma_bf16_16816(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                           simt::Where where = simt::Where::current()) {
  simt::MmaOperand operand{c, a, b};
  simt::mma_bf16_16816(operand, where);
}

/// The target is spoilt at once and filled by cp_async_wait only: a copy into a tile that is still being read, a
/// missing wait and a missing barrier all show, by their values and to ThreadSanitizer.
SIMT_UNCOUNTED inline void cp_async_16(void* shared, const void* global, bool valid,
                                       simt::Where where = simt::Where::current()) {
  detail::check_aligned(shared, "cp_async_16: the shared address is not 16-byte aligned", where);
  if (valid) detail::check_aligned(global, "cp_async_16: the global address is not 16-byte aligned", where);
  if constexpr (simt::counts_accesses) {
    simt::touch_memory(__builtin_return_address(0), shared, 16, simt::Access::store);
    if (valid) simt::touch_memory(__builtin_return_address(0), global, 16, simt::Access::load);
  }
  std::memset(shared, 0xff, 16);
  simt::async_copies().copies.push_back({shared, global, valid});
}

inline void store_16(void* global, uint4 x, simt::Where where = simt::Where::current()) {
  detail::check_aligned(global, "store_16: the address is not 16-byte aligned", where);
  *static_cast<uint4*>(global) = x;
}

SIMT_UNCOUNTED inline void cp_async_commit() {
  simt::AsyncCopies& async = simt::async_copies();
  async.group_ends.push_back(async.copies.size());
}

template <int N>
SIMT_UNCOUNTED void cp_async_wait() {
  simt::AsyncCopies& async = simt::async_copies();
  if (async.group_ends.size() <= N) return;
  const std::size_t groups = async.group_ends.size() - N;
  const std::size_t done = async.group_ends[groups - 1];
  for (std::size_t i = 0; i < done; ++i) {
    const simt::AsyncCopy& copy = async.copies[i];
    if (copy.valid) {
      std::memcpy(copy.shared, copy.global, 16);
    } else {
      std::memset(copy.shared, 0, 16);
    }
  }
  async.copies.erase(async.copies.begin(), async.copies.begin() + static_cast<std::ptrdiff_t>(done));
  async.group_ends.erase(async.group_ends.begin(), async.group_ends.begin() + static_cast<std::ptrdiff_t>(groups));
  for (std::size_t& end : async.group_ends) end -= done;
}

inline unsigned pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  unsigned bits;
  std::memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;  // flushed, as ex2.approx.ftz does
}

}  // namespace vqlm::cuda
