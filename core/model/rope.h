// The frequencies of rotary position embedding for a model's configuration.
#pragma once

#include <vector>

#include "core/model_config.h"

namespace vqlm {

/// (head_dim / 2): radians that pair i turns from one position to the next, theta^(-2i / head_dim) (arXiv 2104.09864),
/// then by model.rope_scaling as Hugging Face's modeling_rope_utils does it, so that models interchange:
///   linear  all frequencies / factor (position interpolation, arXiv 2306.15595);
///   llama3  with waves = original_positions / wavelength, the turns of a pair over the positions of pretraining:
///           frequency / factor where waves < low_freq_factor, frequency where waves > high_freq_factor, and between them
///           linear in waves.
std::vector<double> rope_frequencies(const ModelConfig& model);
/// Of layers with a window: model.window_rope_theta^(-2i / head_dim), not scaled.
std::vector<double> window_rope_frequencies(const ModelConfig& model);

}  // namespace vqlm
