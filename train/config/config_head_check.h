// The head's part of resolve() (train/config/config.h).
#pragma once

#include <cstdint>

#include "train/config/config.h"

namespace vqlm {

/// The largest divisor of `number` that is at most `at_most`; both at least 1.
std::int64_t largest_divisor(std::int64_t number, std::int64_t at_most);

/// Throws UsageError for sizes and kinds that do not go together. The grid must be resolved.
void check_head(const Config& config);

}  // namespace vqlm
