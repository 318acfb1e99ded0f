#include "train/engine/planned_model.h"

#include <optional>

#include "core/model/head/band_map.h"
#include "core/model/transformer.h"
#include "dist/self_communicator.h"
#include "train/engine/planning_backend.h"

namespace vqlm {
namespace {

/// The whole model on one rank, for one token.
class PlannedModel {
 public:
  PlannedModel(const ModelConfig& model, const HeadConfig& head)
      : map_(planned_map(model, head)),
        transformer_(backend_, alone_, {.model = model, .head = head, .batch = {1, 1}, .purpose = Purpose::evaluation},
                     map_ ? &*map_ : nullptr) {}

  Transformer& transformer() { return transformer_; }

 private:
  PlannedMachine machine_{StatedRates{}};
  PlanningBackend backend_{machine_, DType::f32};
  SelfCommunicator alone_{backend_, "self"};
  std::optional<CodeMap> map_;
  Transformer transformer_;
};

}  // namespace

std::vector<LogicalTensor> logical_tensors(const ModelConfig& model, const HeadConfig& head) {
  PlannedModel planned(model, head);
  const std::vector<Parameter>& parameters = planned.transformer().parameters().parameters();
  const auto head_begin = static_cast<std::size_t>(planned.transformer().head_begin());
  std::vector<LogicalTensor> tensors;
  for (std::size_t id = 0; id < parameters.size(); ++id) {
    tensors.push_back({.name = parameters[id].name, .shape = parameters[id].global_shape, .of_head = id >= head_begin});
  }
  return tensors;
}

HeadCost head_cost(const ModelConfig& model, const HeadConfig& head) {
  ModelConfig smallest = model;
  smallest.n_layers = smallest.n_heads = smallest.n_kv_heads = 1;
  smallest.d_ff = 1;
  return PlannedModel(smallest, head).transformer().head_cost();
}

std::optional<CodeMap> planned_map(const ModelConfig& model, const HeadConfig& head) {
  if (const auto* adaptive = adaptive_of(head)) return contiguous_band_map(*adaptive, model.vocab_size);
  if (const auto* vq = vq_of(head)) return balanced_map(model, *vq);
  return std::nullopt;
}

CodeMap balanced_map(const ModelConfig& model, const VqHeadConfig& head) {
  CodeMap map;
  map.vocab_size = model.vocab_size;
  map.clusters = head.clusters;
  map.groups = head.groups();
  map.codes = head.codes();
  map.cluster_of_token.resize(static_cast<std::size_t>(map.vocab_size));
  for (std::size_t token = 0; token < map.cluster_of_token.size(); ++token) {
    map.cluster_of_token[token] = static_cast<std::int32_t>(static_cast<std::int64_t>(token) % map.clusters);
  }
  map.member_codes.resize(map.cluster_of_token.size() * static_cast<std::size_t>(map.groups));
  return map;
}

}  // namespace vqlm
