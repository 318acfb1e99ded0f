// Thin wrappers over the PTX of tensor cores and asynchronous copies: the only inline assembly of the project.
// Portable set, sm_80 and later. Layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix".
// tests/simt/shadow/core/cuda/tensor_core.h is the host executor's version of the same interface.
//
// In all of them lane = threadIdx.x % 32, g = lane / 4 (0..7), t = lane % 4 (0..3), and a register holds two bf16, the
// one with the lower column (or k) in the low half. All 32 lanes of the warp must call, converged.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace vqlm::cuda {

namespace detail {
__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}
}  // namespace detail

/// Loads four 8x8 matrices of bf16 from shared memory. Lane i gives the address (16-byte aligned) of the 8 contiguous
/// elements of row i % 8 of matrix i / 8. r[m] is elements (row g, columns 2t and 2t + 1) of matrix m.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(detail::shared_address(shared_row))
               : "memory");
}

/// As ldmatrix_x4, each matrix transposed: r[m] is elements (rows 2t and 2t + 1, column g) of matrix m as stored.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(detail::shared_address(shared_row))
               : "memory");
}

/// Two matrices: lanes 0-15 give the rows; the addresses of the other lanes are not used.
__device__ __forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(detail::shared_address(shared_row))
               : "memory");
}

/// As ldmatrix_x2, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(detail::shared_address(shared_row))
               : "memory");
}

/// c (16x8, fp32) += a (16x16, bf16) b (16x8, bf16).
///   a[0] (row g,     k 2t, 2t + 1)   a[2] (row g,     k 2t + 8, 2t + 9)     c[0], c[1] (row g,     columns 2t, 2t + 1)
///   a[1] (row g + 8, k 2t, 2t + 1)   a[3] (row g + 8, k 2t + 8, 2t + 9)     c[2], c[3] (row g + 8, columns 2t, 2t + 1)
///   b[0] (k 2t, 2t + 1, column g)    b[1] (k 2t + 8, 2t + 9, column g)
/// So a is one ldmatrix_x4 of row-major (row, k): lane i points at row i % 16, k 8 * (i / 16); b is ldmatrix_x2 of
/// memory that is (column, k), lane i at column i % 8, k 8 * (i / 8), or ldmatrix_x2_trans of memory that is
/// (k, column), lane i at row k = i % 16.
__device__ __forceinline__ void mma_bf16_16816(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Starts copying 16 bytes (both addresses 16-byte aligned) past the registers and L1 into shared memory; zeros where
/// !valid, and then `global` is not read. Visible to this thread after cp_async_wait, to others after a barrier too.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid) {
  const int source_bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(detail::shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
               : "memory");
}

/// Writes 16 bytes to a 16-byte aligned address of global memory in one access, which the compiler may not break up as it
/// does with an assignment behind branches (seen in the PTX of nvcc 13.0).
__device__ __forceinline__ void store_16(void* global, uint4 x) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(global)), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}

/// Closes this thread's group of copies.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most the N youngest groups of this thread are in flight.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Two floats rounded to nearest even, `low` in the low half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}

/// 2^x by the special function unit, at most 2 units in the last place off (PTX ISA, ex2.approx.ftz.f32); results
/// below 2^-126 are 0, and 2^-infinity is 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace vqlm::cuda
