// The arithmetic of host reductions: element by element, in rank order.
#pragma once

#include <cstdint>
#include <vector>

#include "core/communicator.h"

namespace vqlm {

/// out (n) = ((blocks[0] (op) blocks[1]) (op) blocks[2]) ..., each block (n) of `dtype`: f32, f64 or i32. out
/// may be one of the blocks. Overwritten.
void reduce_in_rank_order(void* out, const std::vector<const void*>& blocks, std::int64_t n, DType dtype, Reduce op);

}  // namespace vqlm
