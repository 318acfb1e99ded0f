// The CPU back end: fp32, oneDNN for products, OpenMP over rows and heads, Highway where exp and reductions dominate.
#pragma once

#include <memory>

#include "core/backend.h"

namespace vqlm {

/// `threads` >= 1 OpenMP threads for every op (with several ranks on one machine: cores / ranks). Throws UsageError
/// for threads < 1.
std::unique_ptr<Backend> make_cpu_backend(int threads);

}  // namespace vqlm
