// What the headers of the host executor that stand for instructions report to access_counts.h.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(SIMT_COUNTED)
/// Code that stands for an instruction: what it does with memory is reported by touch_memory, and not seen by the compiler.
#define SIMT_UNCOUNTED __attribute__((no_sanitize("thread"), noinline))
#else
#define SIMT_UNCOUNTED
#endif

namespace simt {

#if defined(SIMT_COUNTED)
constexpr bool counts_accesses = true;
#else
constexpr bool counts_accesses = false;
#endif

enum class Access : std::uint8_t { load, store, atomic };

/// In executors that count accesses: the running thread reads or writes `bytes` at `address`, at a `place` of the program (a
/// return address); memory that is neither global nor shared is passed over.
void touch_memory(const void* place, const void* address, std::size_t bytes, Access access);

}  // namespace simt
