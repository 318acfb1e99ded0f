#include "train/config/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace vqlm {

std::int64_t decay_steps(const OptimSection& optim, std::int64_t steps) {
  if (optim.schedule != ScheduleKind::wsd) return 0;
  return std::llround(static_cast<double>(optim.decay_fraction) * static_cast<double>(steps));
}

float learning_rate(const OptimSection& optim, std::int64_t steps, std::int64_t step) {
  VQLM_ASSERT(step >= 1);
  const double lr = optim.lr;
  const double last = lr * optim.min_lr_ratio;
  const std::int64_t warmup = optim.warmup_steps;
  if (step <= warmup) return static_cast<float>(lr * static_cast<double>(step) / static_cast<double>(warmup));
  // The part of [begin, steps] that lies behind, in [0, 1].
  const auto progress = [&](std::int64_t begin) {
    if (steps <= begin) return 0.0;
    return std::clamp(static_cast<double>(step - begin) / static_cast<double>(steps - begin), 0.0, 1.0);
  };
  switch (optim.schedule) {
    case ScheduleKind::constant:
      return optim.lr;
    case ScheduleKind::cosine:
      return static_cast<float>(last + (lr - last) * 0.5 * (1 + std::cos(std::numbers::pi * progress(warmup))));
    case ScheduleKind::wsd:
      return static_cast<float>(lr + (last - lr) * progress(steps - decay_steps(optim, steps)));
  }
  VQLM_ASSERT(false);
}

}  // namespace vqlm
