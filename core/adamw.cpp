#include "core/adamw.h"

#include <cmath>

namespace vqlm {

AdamWCoefficients adamw_coefficients(const AdamWStep& step) {
  VQLM_ASSERT(step.step >= 1);
  const double beta1 = step.beta1, beta2 = step.beta2, lr = step.lr;
  const auto steps = static_cast<double>(step.step);
  return {.keep_m = step.beta1,
          .add_m = static_cast<float>(1 - beta1),
          .keep_v = step.beta2,
          .add_v = static_cast<float>(1 - beta2),
          .keep_param = static_cast<float>(1 - lr * static_cast<double>(step.weight_decay)),
          .step_size = static_cast<float>(lr / (1 - std::pow(beta1, steps))),
          .root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, steps))),
          .eps = step.eps};
}

}  // namespace vqlm
