// Checks of the keys that make a body other than Llama's.
#pragma once

#include "train/config/config.h"

namespace vqlm {

/// Throws UsageError naming keys and values that do not go together, and a choice that does.
void check_body(const Config& config);

}  // namespace vqlm
