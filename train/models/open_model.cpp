// The doors of train/models/model_source.h: which kind of model a path holds, and a source's tensors into a model's memory.
#include <spdlog/fmt/fmt.h>

#include <map>

#include "core/error.h"
#include "train/models/checkpoint_source.h"
#include "train/models/hf_model.h"
#include "train/models/model_source.h"

namespace vqlm {

std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path) {
  return open_model(path, Verify::yes);
}

std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path, Verify verify) {
  if (!std::filesystem::is_directory(path)) {
    throw Error(fmt::format(
        "{}: no such folder; name a checkpoint, a run folder or a Hugging Face folder (config.json "
        "and safetensors)",
        path.string()));
  }
  const bool checkpoint = std::filesystem::exists(path / "manifest.json");
  if (!checkpoint && std::filesystem::exists(path / "config.json")) return open_hf_model(path);
  return std::make_unique<CheckpointSource>(find_checkpoint(path), verify);
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
