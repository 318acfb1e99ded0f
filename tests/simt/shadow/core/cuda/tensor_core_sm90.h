// The host executor's version of core/cuda/tensor_core_sm90.h; layouts and rules are documented there, what is checked of
// them in tests/simt/README.md.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "core/cuda/matrix_descriptor.h"
#include "core/cuda/tensor_core.h"
#include "tests/simt/async_units.h"

namespace vqlm::cuda {

using Mbarrier = std::uint64_t;
enum class Sums { begin, add };

template <class T>
T* dynamic_shared_1024(simt::Where where = simt::Where::current()) {
  unsigned char* const begin = simt::dynamic_shared_memory();
  return reinterpret_cast<T*>(begin + (1024 - simt::async_units().address(begin, where) % 1024) % 1024);
}
inline unsigned shared_address(const void* pointer, simt::Where where = simt::Where::current()) {
  return simt::async_units().address(pointer, where);
}

template <int N>
void wgmma(float (&c)[N][4], simt::WgmmaOperand operand, simt::Where where) {
  operand.c = &c[0][0];
  operand.n = 8 * N;
  simt::async_units().meet_warpgroup("wgmma", &operand, &simt::AsyncUnits::wgmma_issue, where);
}
template <Major b_major, int N>
void wgmma(float (&c)[N][4], MatrixDescriptor a, MatrixDescriptor b, Sums sums,
           simt::Where where = simt::Where::current()) {
  wgmma(c, {nullptr, 0, sums == Sums::add, nullptr, a, b, b_major == Major::mn}, where);
}
template <Major b_major, int N>
void wgmma(float (&c)[N][4], const unsigned (&a)[4], MatrixDescriptor b, Sums sums,
           simt::Where where = simt::Where::current()) {
  wgmma(c, {nullptr, 0, sums == Sums::add, a, 0, b, b_major == Major::mn}, where);
}

// The arrays are named so that a GPU's compiler keeps them in their registers; here they are looked at after a wait.
inline void wgmma_fence(simt::Where where = simt::Where::current()) {
  simt::async_units().meet_warpgroup("wgmma_fence", nullptr, &simt::AsyncUnits::wgmma_fence, where);
}
template <int N>
void wgmma_fence(float (&)[N][4], simt::Where where = simt::Where::current()) {
  wgmma_fence(where);
}
template <int N, int M>
void wgmma_fence(float (&)[N][4], float (&)[M][4], simt::Where where = simt::Where::current()) {
  wgmma_fence(where);
}
inline void wgmma_commit(simt::Where where = simt::Where::current()) {
  simt::async_units().meet_warpgroup("wgmma_commit", nullptr, &simt::AsyncUnits::wgmma_commit, where);
}
template <int groups, int N>
void wgmma_wait(float (&c)[N][4], simt::Where where = simt::Where::current()) {
  unsigned left = groups;
  simt::async_units().meet_warpgroup("wgmma_wait", &left, &simt::AsyncUnits::wgmma_wait, where);
  simt::async_units().check_registers_free(c, where);
}
template <int groups, int N, int M>
void wgmma_wait(float (&c)[N][4], float (&d)[M][4], simt::Where where = simt::Where::current()) {
  wgmma_wait<groups>(c, where);
  simt::async_units().check_registers_free(d, where);
}
template <int groups, int N, int M, int K>
void wgmma_wait(float (&c)[N][4], float (&d)[M][4], float (&e)[K][4], simt::Where where = simt::Where::current()) {
  wgmma_wait<groups>(c, d, where);
  simt::async_units().check_registers_free(e, where);
}

inline void mbarrier_init(Mbarrier* barrier, unsigned arrivals, simt::Where where = simt::Where::current()) {
  simt::async_units().init_barrier(barrier, arrivals, where);
}
inline void mbarrier_init_fence() {
  simt::async_units().fence_barrier_init();
}
inline void mbarrier_arrive(Mbarrier* barrier, simt::Where where = simt::Where::current()) {
  simt::async_units().arrive(barrier, 0, where);
}
inline void mbarrier_arrive_expect_tx(Mbarrier* barrier, unsigned bytes, simt::Where where = simt::Where::current()) {
  simt::async_units().arrive(barrier, bytes, where);
}
inline void mbarrier_wait(Mbarrier* barrier, unsigned parity, simt::Where where = simt::Where::current()) {
  simt::async_units().wait(barrier, parity, where);
}

namespace detail {
inline simt::TensorMap tensor_map(const CUtensorMap& map) {
  simt::TensorMap result;
  std::memcpy(static_cast<void*>(&result), &map, sizeof(result));
  return result;
}
}  // namespace detail

template <int rank>
void bulk_load(void* shared, const CUtensorMap& map, Mbarrier* barrier, const int (&at)[rank],
               simt::Where where = simt::Where::current()) {
  simt::async_units().bulk_load(shared, detail::tensor_map(map), barrier, at, rank, where);
}
inline void bulk_load_bytes(void* shared, const void* global, unsigned bytes, Mbarrier* barrier,
                            simt::Where where = simt::Where::current()) {
  simt::async_units().bulk_load_bytes(shared, global, bytes, barrier, where);
}
template <int rank>
void bulk_store(const CUtensorMap& map, const void* shared, const int (&at)[rank],
                simt::Where where = simt::Where::current()) {
  simt::async_units().bulk_store(detail::tensor_map(map), shared, at, rank, where);
}
inline void bulk_store_commit() {
  simt::async_units().bulk_commit();
}
template <int groups>
void bulk_store_wait() {
  simt::async_units().bulk_wait(groups);
}

inline void fence_proxy_async() {
  simt::async_units().fence_proxy();
}
inline void named_barrier_sync(int id, int threads, simt::Where where = simt::Where::current()) {
  simt::async_units().named_barrier(id, threads, simt::AsyncUnits::Named::sync, where);
}
inline void named_barrier_arrive(int id, int threads, simt::Where where = simt::Where::current()) {
  simt::async_units().named_barrier(id, threads, simt::AsyncUnits::Named::arrive, where);
}

template <int registers>
void set_registers_down(simt::Where where = simt::Where::current()) {
  int asked = -registers;
  simt::async_units().meet_warpgroup("setmaxnreg", &asked, &simt::AsyncUnits::set_registers, where);
}
template <int registers>
void set_registers_up(simt::Where where = simt::Where::current()) {
  int asked = registers;
  simt::async_units().meet_warpgroup("setmaxnreg", &asked, &simt::AsyncUnits::set_registers, where);
}

}  // namespace vqlm::cuda
