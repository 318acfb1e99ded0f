#include "core/model/rope.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

#include "core/error.h"

namespace vqlm {
namespace {

double llama3(double frequency, const RopeScaling& scaling) {
  const double waves = static_cast<double>(scaling.original_positions) * frequency / (2 * std::numbers::pi);
  const double low = scaling.low_freq_factor, high = scaling.high_freq_factor;
  const double kept = std::clamp((waves - low) / (high - low), 0.0, 1.0);
  return (1 - kept) * frequency / static_cast<double>(scaling.factor) + kept * frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const ModelConfig& model) {
  const int head_dim = model.head_dim();
  const RopeScaling& scaling = model.rope_scaling;
  VQLM_ASSERT(head_dim % 2 == 0 && scaling.factor > 0);
  VQLM_ASSERT(scaling.kind != RopeScaling::Kind::llama3 || scaling.high_freq_factor > scaling.low_freq_factor);
  std::vector<double> frequencies;
  for (int i = 0; i < head_dim / 2; ++i) {
    const double plain = std::pow(static_cast<double>(model.rope_theta), -2.0 * i / head_dim);
    switch (scaling.kind) {
      case RopeScaling::Kind::none:
        frequencies.push_back(plain);
        break;
      case RopeScaling::Kind::linear:
        frequencies.push_back(plain / static_cast<double>(scaling.factor));
        break;
      case RopeScaling::Kind::llama3:
        frequencies.push_back(llama3(plain, scaling));
        break;
    }
  }
  return frequencies;
}

std::vector<double> window_rope_frequencies(const ModelConfig& model) {
  ModelConfig local = model;
  local.rope_theta = model.window_rope_theta;
  local.rope_scaling = {};
  return rope_frequencies(local);
}

}  // namespace vqlm
