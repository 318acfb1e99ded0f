// What a model consists of, from building it on a back end without memory: its logical tensors (docs/checkpoints.md) and
// what its head costs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/model/head/code_map.h"
#include "core/model/head/output_head.h"
#include "core/model_config.h"
#include "core/tensor.h"

namespace vqlm {

struct LogicalTensor {
  std::string name;
  Shape shape;
  bool of_head = false;  // a tied head's matrix is the embedding's
};

/// Every parameter tensor once, in the order of a forward pass, without a run's moving averages. All sizes of `model` must be
/// filled in.
std::vector<LogicalTensor> logical_tensors(const ModelConfig& model, const HeadConfig& head);

/// The cost of the head alone. Of `model` only vocabulary, width and tie_embeddings count.
HeadCost head_cost(const ModelConfig& model, const HeadConfig& head);

/// A map of the sizes that the head's has, where the real one is not known; none for heads without a map.
std::optional<CodeMap> planned_map(const ModelConfig& model, const HeadConfig& head);
/// Clusters whose sizes are equal to within one, for a head whose map is not known; the members' codes are 0.
CodeMap balanced_map(const ModelConfig& model, const VqHeadConfig& head);

}  // namespace vqlm
