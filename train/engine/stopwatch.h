// What benchmarks measure with.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <ctime>
#include <vector>

#include "core/error.h"

namespace vqlm {

/// Of a clock that never goes back.
inline double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Processor time of all threads of this process so far: a clock that other work on the machine does not move.
inline double cpu_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

/// wall_seconds or cpu_seconds.
using Clock = double (*)();

/// The middle one of `values` (the upper of two); they must not be empty.
inline double median(std::vector<double> values) {
  VQLM_ASSERT(!values.empty());
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace vqlm
