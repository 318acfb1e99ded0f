// Which logical tensors a model has: their names and shapes (docs/checkpoints.md), without building it.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/tensor.h"

namespace vqlm {

struct LogicalTensor {
  std::string name;
  Shape shape;
};

/// Every parameter tensor once, in the order of a forward pass. All sizes of `model` must be filled in.
std::vector<LogicalTensor> logical_tensors(const ModelConfig& model, const HeadConfig& head);

/// Those of the output head alone; a tied head's matrix is the embedding's and does not count.
std::vector<LogicalTensor> head_tensors(const ModelConfig& model, const HeadConfig& head);

}  // namespace vqlm
