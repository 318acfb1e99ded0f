// Does not compile, which house.missing_operand expects: of the operands that RMSNorm must have, the gain is left out.
#include "core/backend.h"

namespace vqlm {

void normalise(Backend& backend, Tensor y, Tensor rstd, Tensor x) {
  backend.run(RmsnormForward{.y = y, .rstd = rstd, .x = x, .eps = 1e-5f});
}

}  // namespace vqlm
