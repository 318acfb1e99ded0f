// Machine contexts with stacks of their own, and the jump between them. AddressSanitizer and
// ThreadSanitizer are told of every jump.
#pragma once

#include <cstddef>

#include "tests/simt/sanitizers.h"

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_REGISTER_JUMP 1
#endif
#if !defined(SIMT_REGISTER_JUMP)
#include <ucontext.h>
#endif

namespace simt {

#if defined(SIMT_REGISTER_JUMP)
/// Saves the registers that a callee must keep and the stack pointer, and goes on where `target` was saved.
extern "C" void simt_jump(void** save, void* target);
#endif

class Fiber {
 public:
  /// The calling thread's own context.
  Fiber();
  /// A context that runs `entry`, which must never return, when first switched to. Fibers of neighbouring `index`
  /// have their stacks' tops in different cache sets.
  Fiber(void (*entry)(), std::size_t index);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Leaves this context, which must be the running one, for `target`; returns when somebody switches back.
  void switch_to(Fiber& target) {
    asan_start_switch(&fake_stack_, target.bottom_, target.size_);
    tsan_switch_to(target.tsan_fiber_);
#if defined(SIMT_REGISTER_JUMP)
    simt_jump(&stack_pointer_, target.stack_pointer_);
#else
    swapcontext(&context_, &target.context_);
#endif
    asan_finish_switch(fake_stack_);
  }

  /// To be called first in `entry`.
  static void entered();

 private:
  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;  // owned; null for the thread's own context
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;
#if !defined(SIMT_REGISTER_JUMP)
  ucontext_t context_{};
#endif
};

}  // namespace simt
