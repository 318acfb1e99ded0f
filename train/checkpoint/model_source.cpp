#include "train/checkpoint/model_source.h"

#include <spdlog/fmt/fmt.h>

#include <map>

#include "core/error.h"

namespace vqlm {

Config ModelSource::config() const {
  return config_of_model(*this);
}

Config config_of_model(const ModelSource& source) {
  Config config;
  config.model = source.model();
  config.head = source.head();
  if (source.seq_len() > 0) config.data.seq_len = source.seq_len();
  return config;
}

void load_parameters(const ModelSource& source, ParameterStore& parameters) {
  std::map<std::string, Shape> shapes;
  for (const ModelSource::TensorInfo& tensor : source.tensors()) shapes[tensor.name] = tensor.shape;
  for (std::size_t id = 0; id < parameters.parameters().size(); ++id) {
    const Parameter& p = parameters.parameters()[id];
    if (p.rule == UpdateRule::moving_average) continue;  // a training's own; OutputHead::start_averages
    const auto found = shapes.find(p.name);
    if (found == shapes.end()) {
      throw Error(fmt::format("{}: has no tensor {}; its model or head is another than the one asked for",
                              source.path().string(), p.name));
    }
    if (found->second != p.global_shape) {
      throw Error(fmt::format("{}: tensor {} has shape {} instead of {}; the model asked for is another",
                              source.path().string(), p.name, found->second.str(), p.global_shape.str()));
    }
    parameters.set_slice(static_cast<ParameterId>(id), source.read(p.name, p.offset, p.shape));
  }
}

}  // namespace vqlm
