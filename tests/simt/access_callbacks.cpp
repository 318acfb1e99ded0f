// What the compiler calls for loads and stores of kernels that are compiled with -fsanitize=thread and linked without its
// library: the counting functions of access_counts.h instead. Functions of atomics are done as they are (GCC turns all of a
// translation unit into calls), the others do nothing else.
#include <atomic>
#include <cstddef>

#include "tests/simt/touch_memory.h"

namespace {
using simt::Access;
}

// The names and types are GCC's, which has no header for them.
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define SIMT_CALLBACKS(bytes)                                                       \
  void __tsan_read##bytes(const void* address) {                                    \
    simt::touch_memory(__builtin_return_address(0), address, bytes, Access::load);  \
  }                                                                                 \
  void __tsan_write##bytes(void* address) {                                         \
    simt::touch_memory(__builtin_return_address(0), address, bytes, Access::store); \
  }                                                                                 \
  void __tsan_unaligned_read##bytes(const void* address) {                          \
    simt::touch_memory(__builtin_return_address(0), address, bytes, Access::load);  \
  }                                                                                 \
  void __tsan_unaligned_write##bytes(void* address) {                               \
    simt::touch_memory(__builtin_return_address(0), address, bytes, Access::store); \
  }
SIMT_CALLBACKS(1)
SIMT_CALLBACKS(2)
SIMT_CALLBACKS(4)
SIMT_CALLBACKS(8)
SIMT_CALLBACKS(16)
#undef SIMT_CALLBACKS

void __tsan_read_range(const void* address, std::size_t bytes) {
  simt::touch_memory(__builtin_return_address(0), address, bytes, Access::load);
}
void __tsan_write_range(void* address, std::size_t bytes) {
  simt::touch_memory(__builtin_return_address(0), address, bytes, Access::store);
}

#define SIMT_ATOMIC_UPDATE(bits, T, operation)                             \
  T __tsan_atomic##bits##_##operation(volatile T* address, T value, int) { \
    return __atomic_##operation(address, value, __ATOMIC_SEQ_CST);         \
  }
#define SIMT_ATOMICS(bits, T)                                                                                \
  T __tsan_atomic##bits##_load(const volatile T* address, int) {                                             \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                       \
  }                                                                                                          \
  void __tsan_atomic##bits##_store(volatile T* address, T value, int) {                                      \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                          \
  T __tsan_atomic##bits##_exchange(volatile T* address, T value, int) {                                      \
    return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                                            \
  }                                                                                                          \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* address, T* expected, T value, int, int) {   \
    return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                                          \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* address, T* expected, T value, int, int) {     \
    return __atomic_compare_exchange_n(address, expected, value, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
  }                                                                                                          \
  SIMT_ATOMIC_UPDATE(bits, T, fetch_add)                                                                     \
  SIMT_ATOMIC_UPDATE(bits, T, fetch_sub)                                                                     \
  SIMT_ATOMIC_UPDATE(bits, T, fetch_and)                                                                     \
  SIMT_ATOMIC_UPDATE(bits, T, fetch_or)                                                                      \
  SIMT_ATOMIC_UPDATE(bits, T, fetch_xor)
SIMT_ATOMICS(8, unsigned char)
SIMT_ATOMICS(16, unsigned short)
SIMT_ATOMICS(32, unsigned)
SIMT_ATOMICS(64, unsigned long)
#undef SIMT_ATOMICS
#undef SIMT_ATOMIC_UPDATE

void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int) {}
}
