#include "tests/simt/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/simt/sanitizers.h"

namespace simt {
namespace {

constexpr std::size_t guard_bytes = 4096;
// Kernels keep tiles in "registers", that is here; AddressSanitizer's red zones multiply them.
constexpr std::size_t stack_bytes = address_sanitizer ? 512 * 1024 : 128 * 1024;

}  // namespace

#if defined(SIMT_REGISTER_JUMP)
// 7.5 ns a jump in a ring of 32 fibers, where swapcontext takes 167 (it asks the kernel about signals). The return
// address is popped and jumped to, so that `ret` stays paired with `call` in the processor's return predictor.
__asm__(
    ".text\n.globl simt_jump\n.type simt_jump,@function\nsimt_jump:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
    " pop %rcx\n jmp *%rcx\n.size simt_jump,.-simt_jump\n");
#endif

Fiber::Fiber() {
  pthread_attr_t attributes;
  void* bottom = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0 ||
      pthread_attr_getstack(&attributes, &bottom, &size_) != 0) {
    std::fprintf(stderr, "simt: cannot read the bounds of the thread's stack\n");
    std::abort();
  }
  pthread_attr_destroy(&attributes);
  bottom_ = bottom;
  tsan_fiber_ = tsan_current_fiber();
}

Fiber::Fiber(void (*entry)(), std::size_t index) : size_(stack_bytes) {
  void* mapping = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED || mprotect(mapping, guard_bytes, PROT_NONE) != 0) {
    std::fprintf(stderr, "simt: no memory for the stack of thread %zu\n", index);
    std::abort();
  }
  stack_ = static_cast<char*>(mapping);
  bottom_ = stack_ + guard_bytes;
  tsan_fiber_ = tsan_create_fiber();
#if defined(SIMT_REGISTER_JUMP)
  // Stacks are a power of two apart: without the stagger the tops of all would fall into the same cache sets.
  const std::size_t stagger = (index * 320 % 4096) / 64 * 64;
  void** top = reinterpret_cast<void**>(stack_ + guard_bytes + stack_bytes - 64 - stagger);
  *--top = nullptr;  // entry's return address; keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_ + guard_bytes;
  context_.uc_stack.ss_size = stack_bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#endif
}

Fiber::~Fiber() {
  if (stack_ == nullptr) return;
  tsan_destroy_fiber(tsan_fiber_);
  munmap(stack_, guard_bytes + stack_bytes);
}

void Fiber::entered() {
  asan_finish_switch(nullptr);
}

}  // namespace simt
