// Which logical tensors a model has: their names and shapes (docs/checkpoints.md), without building it.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/parameters.h"
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

/// The tensor as boxes of whole rows (of the first axis), in order, each of at most 16 MiB in f32 where a row is not longer:
/// what streams a tensor through a fixed memory.
std::vector<Box> row_boxes(const Shape& shape);

/// As many zeros as the shape has axes.
Shape origin_of(const Shape& shape);

}  // namespace vqlm
