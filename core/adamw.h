// The numbers of one AdamW step, made on the host for every back end's kernel.
#pragma once

#include "core/backend.h"

namespace vqlm {

/// What an update is made of, apart from clipping: with g the clipped gradient,
///   m = keep_m m + add_m g,  v = keep_v v + add_v g^2,
///   param = keep_param param - step_size m / (root_scale sqrt(v) + eps).
struct AdamWCoefficients {
  float keep_m;      // beta1
  float add_m;       // 1 - beta1
  float keep_v;      // beta2
  float add_v;       // 1 - beta2
  float keep_param;  // 1 - lr * weight_decay
  float step_size;   // lr / (1 - beta1^step)
  float root_scale;  // 1 / sqrt(1 - beta2^step)
  float eps;
};

/// Computed in double; step.step >= 1.
AdamWCoefficients adamw_coefficients(const AdamWStep& step);

}  // namespace vqlm
