// A model whose VQ head is carried over to another code map.
#pragma once

#include <memory>
#include <string>

#include "core/communicator.h"
#include "train/checkpoint/model_source.h"
#include "train/codes/map_carry_over.h"

namespace vqlm {

/// The parameters of a VQ head with codes or without members, whole.
HeadArrays head_arrays(const ModelSource& source);

/// The source itself where `map` (the same on every rank, of the sizes of the source's) puts every token where its own
/// does. Else its model with map and head changed so that it predicts nearly as before (train/codes/map_carry_over.h),
/// which the first rank works out for all; it logs how many tokens moved. Collective. Throws UsageError, naming
/// `origin` of the map, where the head has no codes of its own that could be carried over.
std::unique_ptr<ModelSource> carried_over(std::unique_ptr<ModelSource> source, const CodeMap& map,
                                          const std::string& origin, Backend& backend, Communicator& group);

/// Why no head of this kind can be carried over to another map, and what to do; empty where it can.
std::string carry_over_obstacle(const HeadConfig& head);

}  // namespace vqlm
