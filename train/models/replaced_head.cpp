#include "train/models/replaced_head.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/box.h"
#include "core/error.h"

namespace vqlm {
namespace {

ModelConfig with_tie(ModelConfig model, bool tied) {
  model.tie_embeddings = tied;
  return model;
}

}  // namespace

ReplacedHead::ReplacedHead(const ModelSource& trunk, HeadConfig head, Tied tied)
    : trunk_(trunk),
      model_(with_tie(trunk.model(), tied == Tied::yes)),
      head_(std::move(head)),
      logical_(logical_tensors(model_, head_)) {}

std::string ReplacedHead::description() const {
  return fmt::format("{}, its head replaced by a {} one", trunk_.description(),
                     kind_of(head_) == HeadKind::vq ? "VQ" : "dense");
}

std::vector<ModelSource::TensorInfo> ReplacedHead::tensors() const {
  std::map<std::string, std::string> stored_as;
  for (const TensorInfo& tensor : trunk_.tensors()) stored_as[tensor.name] = tensor.stored_as;
  std::vector<TensorInfo> infos;
  for (const LogicalTensor& tensor : logical_) {
    infos.push_back({tensor.name, tensor.shape, tensor.of_head ? "float32" : stored_as[tensor.name]});
  }
  return infos;
}

std::vector<float> ReplacedHead::read(const std::string& name, const Shape& offset, const Shape& extent) const {
  const bool of_head = std::any_of(logical_.begin(), logical_.end(),
                                   [&](const LogicalTensor& tensor) { return tensor.of_head && tensor.name == name; });
  return of_head ? read_head(name, offset, extent) : trunk_.read(name, offset, extent);
}

VqReplacement::VqReplacement(const ModelSource& trunk, HeadConfig head, CodeMap map,
                             std::map<std::string, std::vector<float>> tensors)
    : ReplacedHead(trunk, std::move(head)), map_(std::move(map)), tensors_(std::move(tensors)) {
  for (const LogicalTensor& tensor : logical()) {
    if (!tensor.of_head) continue;
    VQLM_ASSERT(static_cast<std::int64_t>(tensors_.at(tensor.name).size()) == tensor.shape.numel());
  }
}

std::vector<float> VqReplacement::read_head(const std::string& name, const Shape& offset, const Shape& extent) const {
  for (const LogicalTensor& tensor : logical()) {
    if (tensor.name == name) return box_of(tensors_.at(name), tensor.shape, offset, extent);
  }
  throw Error(fmt::format("{}: has no tensor {}", path().string(), name));
}

std::vector<float> read_whole(const ModelSource& source, const std::string& name) {
  for (const ModelSource::TensorInfo& tensor : source.tensors()) {
    if (tensor.name == name) return source.read(name, origin_of(tensor.shape), tensor.shape);
  }
  throw Error(fmt::format("{}: has no tensor {}", source.path().string(), name));
}

}  // namespace vqlm
