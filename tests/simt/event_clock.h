// The clock by which events are dated: the machine's, or, where the environment says SIMT_CLOCK=products, one that stands still
// but for products.
#pragma once

#include <chrono>
#include <cstdint>

namespace simt {

std::chrono::steady_clock::time_point event_time();
/// What a product takes by the clock of products.
void pass_time(std::int64_t nanoseconds);

}  // namespace simt
