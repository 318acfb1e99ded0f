// The sanitizers' fiber interfaces, or nothing. The executor itself is compiled without -fsanitize=thread (its work on
// behalf of a whole warp would look like races), so the build says SIMT_TSAN=1 where the kernels have it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__) && !defined(SIMT_ASAN)
#define SIMT_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(SIMT_TSAN) && !defined(SIMT_COUNTED)
#define SIMT_TSAN 1
#endif
#if defined(SIMT_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif
#if defined(SIMT_ASAN)
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack_save, const void** bottom_old, size_t* size_old);
void __asan_poison_memory_region(void const volatile* address, size_t bytes);
void __asan_unpoison_memory_region(void const volatile* address, size_t bytes);
}
#endif

namespace simt {

#if defined(SIMT_TSAN)
constexpr bool thread_sanitizer = true;
inline void* tsan_current_fiber() {
  return __tsan_get_current_fiber();
}
inline void* tsan_create_fiber() {
  return __tsan_create_fiber(0);
}
inline void tsan_destroy_fiber(void* fiber) {
  __tsan_destroy_fiber(fiber);
}
inline void tsan_switch_to(void* fiber) {
  __tsan_switch_to_fiber(fiber, 1);  // 1: the jump itself orders nothing
}
inline void tsan_acquire(void* address) {
  __tsan_acquire(address);
}
inline void tsan_release(void* address) {
  __tsan_release(address);
}
/// What the executor does on a thread's fiber for itself: it allocates and copies, and ThreadSanitizer watches the library
/// functions for that. No switch of fibers may fall into its life.
class TsanBlind {
 public:
  TsanBlind() {
    AnnotateIgnoreReadsBegin(nullptr, 0);
    AnnotateIgnoreWritesBegin(nullptr, 0);
  }
  ~TsanBlind() {
    AnnotateIgnoreWritesEnd(nullptr, 0);
    AnnotateIgnoreReadsEnd(nullptr, 0);
  }
  TsanBlind(const TsanBlind&) = delete;
  TsanBlind& operator=(const TsanBlind&) = delete;
};
#else
constexpr bool thread_sanitizer = false;
inline void* tsan_current_fiber() {
  return nullptr;
}
inline void* tsan_create_fiber() {
  return nullptr;
}
inline void tsan_destroy_fiber(void*) {}
inline void tsan_switch_to(void*) {}
inline void tsan_acquire(void*) {}
inline void tsan_release(void*) {}
class TsanBlind {
 public:
  TsanBlind() {}
};
#endif

#if defined(SIMT_ASAN)
constexpr bool address_sanitizer = true;
inline void asan_start_switch(void** fake_stack, const void* bottom, std::size_t size) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
}
inline void asan_finish_switch(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}
inline void asan_poison(void* address, std::size_t bytes) {
  __asan_poison_memory_region(address, bytes);
}
inline void asan_unpoison(void* address, std::size_t bytes) {
  __asan_unpoison_memory_region(address, bytes);
}
#else
constexpr bool address_sanitizer = false;
inline void asan_start_switch(void**, const void*, std::size_t) {}
inline void asan_finish_switch(void*) {}
inline void asan_poison(void*, std::size_t) {}
inline void asan_unpoison(void*, std::size_t) {}
#endif

}  // namespace simt
