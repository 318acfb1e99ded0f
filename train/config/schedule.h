// The learning rate of a step.
#pragma once

#include <cstdint>

#include "train/config/config.h"

namespace vqlm {

/// Steps at the end that the wsd schedule decays over: decay_fraction * steps, rounded to nearest; 0 for the
/// others.
std::int64_t decay_steps(const OptimSection& optim, std::int64_t steps);

/// The rate of `step`, counted from 1 to `steps`; beyond `steps` the last rate. w = warmup_steps:
///   step <= w          lr * step / w
///   constant           lr
///   cosine             lr * (r + (1 - r) (1 + cos(pi (step - w) / (steps - w))) / 2),  r = min_lr_ratio
///   wsd                lr until steps - decay_steps, then linear down to r * lr at `steps`
/// Cosine: arXiv 1608.03983; wsd (warm-up, stable, decay): arXiv 2404.06395.
float learning_rate(const OptimSection& optim, std::int64_t steps, std::int64_t step);

}  // namespace vqlm
