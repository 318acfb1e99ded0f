// Learning rates and decays by what parameters are for.
#pragma once

#include <string>

#include "core/parameter_role.h"
#include "train/config/config.h"

namespace vqlm {

const RoleRatios& ratios_of(const OptimSection& optim, ParameterRole role);

/// "adamw; highest rate and decay of blocks 0.001, 0.1; embedding 0.004, 0.1; head 0.001, 0.1; tables 0.001, 0.1; gains 0.001, 0",
/// and tables at the input where the model has some.
std::string rates_text(const OptimSection& optim, const ModelConfig& model);

}  // namespace vqlm
