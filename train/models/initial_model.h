// `vqlm train --init`: a run that starts from a trained model's parameters, at step 0.
#pragma once

#include "train/checkpoint/model_source.h"
#include "train/config/config.h"

namespace vqlm {

/// Throws UsageError where a key that gives a tensor its shape or its meaning (model.*, head.*) is not the source's, naming
/// the key and both values, and what to do. config must be resolved.
void check_initial_model(const Config& config, const ModelSource& source);

}  // namespace vqlm
