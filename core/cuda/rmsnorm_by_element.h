// RMSNorm of rows that do not begin at 16-byte boundaries (odd widths, odd addresses), or are too wide for registers.
#pragma once

#include "core/cuda/context.h"
#include "core/ops/rmsnorm.h"

namespace vqlm::cuda {

void rmsnorm_forward_by_element(const Context& context, const RmsnormForward& op);
void rmsnorm_backward_by_element(const Context& context, const RmsnormBackward& op);

}  // namespace vqlm::cuda
