// Thin wrappers over the PTX that sm_90a adds (Hopper; no other architecture has all of it): products of warpgroups,
// barriers in shared memory, bulk tensor copies. Beside tensor_core.h the only inline assembly of the project. Files that
// include this are compiled for sm_90a alone (core/CMakeLists.txt). Sources: PTX ISA 8.0, "Asynchronous warpgroup level
// matrix instructions", "mbarrier", "cp.async.bulk.tensor"; layouts as in matrix_descriptor.h.
// tests/simt/shadow/core/cuda/tensor_core_sm90.h is the host executor's version of the same interface.
//
// A warpgroup is four warps, the first of them a multiple of four; its 128 threads call the wgmma functions together.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/matrix_descriptor.h"
#include "core/cuda/tensor_core.h"

namespace vqlm::cuda {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return detail::shared_address(pointer);
}

/// Dynamic shared memory from its first multiple of 1024 bytes on, where atoms of 128-byte swizzles may lie: ask the launch
/// for 1024 bytes more.
template <class T>
__device__ __forceinline__ T* dynamic_shared_1024() {
  extern __shared__ __align__(128) unsigned char vqlm_dynamic_shared[];
  return reinterpret_cast<T*>(vqlm_dynamic_shared + (1024 - shared_address(vqlm_dynamic_shared) % 1024) % 1024);
}

// ---- products of a warpgroup --------------------------------------------------------------------------------------

/// Whether a product is added to what the sums hold.
enum class Sums { begin, add };

namespace detail {
// Orders the compiler's use of these registers against the asynchronous product that has them.
template <int N>
__device__ __forceinline__ void hold(float (&c)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory");
  }
}
}  // namespace detail

/// Before the first product after registers that it uses (sums, operand a) were read or written; names the sums.
template <class... Registers>
__device__ __forceinline__ void wgmma_fence(Registers&... sums) {
  (detail::hold(sums), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/// Closes a group of products.
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most the `groups` youngest groups are in flight; names the sums that are free from here on.
template <int groups, class... Registers>
__device__ __forceinline__ void wgmma_wait(Registers&... sums) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
  (detail::hold(sums), ...);
}

// clang-format off
#define VQLM_SUM4(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define VQLM_SUM16(n) VQLM_SUM4(n), VQLM_SUM4(n + 1), VQLM_SUM4(n + 2), VQLM_SUM4(n + 3)
#define VQLM_NAMES_32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, " \
    "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define VQLM_NAMES_64 VQLM_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// clang-format on

/// c (64, 8 N; fp32) = or += a (64, 16) b (8 N, 16)^T, both bf16, in flight until the wgmma_wait that covers its group: till
/// then the sums, and a's registers where it lies there, may not be touched, and shared memory that is read may not change.
/// A thread's c[n][e] is row 16 w + g + 8 (e / 2), w its warp in the group, and column 8 n + 2 t + e % 2, and its a[4] are
/// those rows of operand a, as in tensor_core.h. N: 8 or 16. a in shared memory is Major::k.
template <Major b_major, int N>
__device__ __forceinline__ void wgmma(float (&c)[N][4], MatrixDescriptor a, MatrixDescriptor b, Sums sums) {
  static_assert(N == 8 || N == 16);
  constexpr int transposed = b_major == Major::mn;
  const int add = sums == Sums::add;
  if constexpr (N == 8) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" VQLM_NAMES_32 "}, %32, %33, p, 1, 1, 0, %35;\n}\n"
        : VQLM_SUM16(0), VQLM_SUM16(4)
        : "l"(a), "l"(b), "r"(add), "n"(transposed));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" VQLM_NAMES_64 "}, %64, %65, p, 1, 1, 0, %67;\n}\n"
        : VQLM_SUM16(0), VQLM_SUM16(4), VQLM_SUM16(8), VQLM_SUM16(12)
        : "l"(a), "l"(b), "r"(add), "n"(transposed));
  }
}
template <Major b_major, int N>
__device__ __forceinline__ void wgmma(float (&c)[N][4], const unsigned (&a)[4], MatrixDescriptor b, Sums sums) {
  static_assert(N == 8 || N == 16);
  constexpr int transposed = b_major == Major::mn;
  const int add = sums == Sums::add;
  if constexpr (N == 8) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" VQLM_NAMES_32
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, "
        "%38;\n}\n"
        : VQLM_SUM16(0), VQLM_SUM16(4)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(transposed));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" VQLM_NAMES_64
        "}, {%64, %65, %66, %67}, %68, p, 1, 1, "
        "%70;\n}\n"
        : VQLM_SUM16(0), VQLM_SUM16(4), VQLM_SUM16(8), VQLM_SUM16(12)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(transposed));
  }
}

#undef VQLM_SUM4
#undef VQLM_SUM16
#undef VQLM_NAMES_32
#undef VQLM_NAMES_64

// ---- barriers -----------------------------------------------------------------------------------------------------

/// 8 bytes of shared memory. A phase is complete when all its arrivals and all bytes that it expects have come; the next
/// begins by itself.
using Mbarrier = std::uint64_t;

__device__ __forceinline__ void mbarrier_init(Mbarrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/// Behind the inits, before a __syncthreads and the first bulk copy: lets asynchronous units see them.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(Mbarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
/// An arrival that makes the phase wait for so many bytes of bulk copies, too.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(Mbarrier* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
/// Waits for the end of the phase of this parity (0, 1, 0, ...); returns at once on a barrier in its first phase where
/// parity is 1.
__device__ __forceinline__ void mbarrier_wait(Mbarrier* barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred done;\nwait:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra wait;\n}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

/// Waits for `threads` threads (whole warps, converged) that have come to barrier `id`, 1 to 15, by this or by
/// named_barrier_arrive.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Lets asynchronous units (products, bulk copies) see what this thread stored to shared memory. A barrier behind it where
/// another thread starts them.
__device__ __forceinline__ void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// The warpgroup gives registers back, to this many a thread, or takes what others gave back, waiting for it.
template <int registers>
__device__ __forceinline__ void set_registers_down() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ __forceinline__ void set_registers_up() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

// ---- bulk tensor copies ---------------------------------------------------------------------------------------------

/// One thread starts copying a box of a tensor (tensor_maps.h) to shared memory, aligned to 128 bytes and, where swizzled,
/// to the swizzle's atoms; elements outside the tensor are zeros. The box's bytes, those included, come to the barrier. `at`
/// is the first element's position, the contiguous dimension first. The map is a __grid_constant__ parameter.
template <int rank>
__device__ __forceinline__ void bulk_load(void* shared, const CUtensorMap& map, Mbarrier* barrier,
                                          const int (&at)[rank]) {
  static_assert(rank >= 2 && rank <= 4);
  const auto tensor = reinterpret_cast<std::uint64_t>(&map);
  const unsigned to = shared_address(shared), announce = shared_address(barrier);
  if constexpr (rank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
        :
        : "r"(to), "l"(tensor), "r"(announce), "r"(at[0]), "r"(at[1])
        : "memory");
  } else if constexpr (rank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
        :
        : "r"(to), "l"(tensor), "r"(announce), "r"(at[0]), "r"(at[1]), "r"(at[2])
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
        :
        : "r"(to), "l"(tensor), "r"(announce), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
        : "memory");
  }
}

/// The same for `bytes` bytes as they lie, a multiple of 16, as both addresses are.
__device__ __forceinline__ void bulk_load_bytes(void* shared, const void* global, unsigned bytes, Mbarrier* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(bytes),
                 "r"(shared_address(barrier))
               : "memory");
}

/// One thread starts copying a box from shared memory; elements outside the tensor are not written. Shared memory must stay
/// as it is until bulk_store_wait.
template <int rank>
__device__ __forceinline__ void bulk_store(const CUtensorMap& map, const void* shared, const int (&at)[rank]) {
  static_assert(rank >= 2 && rank <= 4);
  const auto tensor = reinterpret_cast<std::uint64_t>(&map);
  const unsigned from = shared_address(shared);
  if constexpr (rank == 2) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(tensor), "r"(from),
                 "r"(at[0]), "r"(at[1])
                 : "memory");
  } else if constexpr (rank == 3) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(tensor),
                 "r"(from), "r"(at[0]), "r"(at[1]), "r"(at[2])
                 : "memory");
  } else {
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(tensor),
                 "r"(from), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
                 : "memory");
  }
}
/// Closes this thread's group of stores.
__device__ __forceinline__ void bulk_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Waits until at most the `groups` youngest of this thread's groups still read shared memory.
template <int groups>
__device__ __forceinline__ void bulk_store_wait() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(groups) : "memory");
}

}  // namespace vqlm::cuda
