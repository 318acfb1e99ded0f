#include "train/models/open_model.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "train/models/hf_model.h"

namespace vqlm {

std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path) {
  return open_model(path, Verify::yes);
}

std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path, Verify verify) {
  if (!std::filesystem::is_directory(path)) {
    throw Error(
        fmt::format("{}: no such folder; name a checkpoint, a run folder or a Hugging Face folder (config.json "
                    "and safetensors)",
                    path.string()));
  }
  const bool checkpoint = std::filesystem::exists(path / "manifest.json");
  if (!checkpoint && std::filesystem::exists(path / "config.json")) return open_hf_model(path);
  return std::make_unique<CheckpointReader>(find_checkpoint(path), verify);
}

}  // namespace vqlm
