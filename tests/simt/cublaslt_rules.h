// What the stand-in for cuBLASLt does with bf16 operands whose leading dimension or address is no multiple of 8 elements, and
// the algorithms that it has.
#pragma once

#include <cstdint>

namespace simt {

enum class UnalignedOperands {
  refused,       // CUBLAS_STATUS_INVALID_VALUE and a line on standard error: a layer forgot to pad
  allowed,       // computed
  no_algorithm,  // the heuristic finds none
};

/// `refused` at first. For the tests' main thread.
void set_unaligned_operands(UnalignedOperands rule);

// In the heuristic's order. By the clock of products (SIMT_CLOCK) the first is the slowest.
inline constexpr int slow_algorithm = 10;
inline constexpr int lost_algorithm = 43;      // cannot be made again from its configuration
inline constexpr int unsteady_algorithm = 32;  // the last bit of its results differs from call to call
inline constexpr int split_algorithm = 21;     // sums three parts of K: another rounding; not for K < 3
inline constexpr int deep_algorithm = 54;      // the fastest where the product is deeper than it is wide

/// Products that the algorithm has made in this process.
std::int64_t products_by(int id);

}  // namespace simt
