// What `vqlm bench collectives` measured, for plans.
#pragma once

#include <string>

#include "train/engine/planned_machine.h"

namespace vqlm {

/// Rates of a rank's links that the "rates" of the JSON file state; those that it does not state stay as they are in `rates`:
/// network_bytes_per_second, tensor_bytes_per_second, exchange_bytes_per_second, collective_seconds. Throws Error naming the
/// file and what is wrong with it.
StatedRates with_measured(StatedRates rates, const std::string& path);

}  // namespace vqlm
