// What a model holds, for people.
#pragma once

#include <string>

#include "train/checkpoint/model_source.h"

namespace vqlm {

/// Kind, sizes, head, parameter counts, tokenizer, for a checkpoint where its run stands, and a line for each tensor with
/// shape and stored type. Reads no values.
std::string model_info(const ModelSource& source);

}  // namespace vqlm
