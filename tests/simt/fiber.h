// Machine contexts with stacks of their own, and the jump between them: about 5 ns on x86-64. AddressSanitizer and
// ThreadSanitizer are told of every jump.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
 public:
  /// The calling thread's own context.
  Fiber();
  /// A context that runs `entry`, which must never return, when first switched to.
  explicit Fiber(void (*entry)(), std::size_t index);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Leaves this context, which must be the running one, for `target`; returns when somebody switches back.
  void switch_to(Fiber& target);

  /// To be called first in `entry`.
  static void entered();

 private:
  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;  // owned; null for the thread's own context
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;
#if !defined(__x86_64__)
  ucontext_t context_{};
#endif
};

}  // namespace simt
