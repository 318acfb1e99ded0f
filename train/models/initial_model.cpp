#include "train/models/initial_model.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "train/config/same_model.h"

namespace vqlm {

void check_initial_model(const Config& config, const ModelSource& source) {
  const auto difference = first_difference(config, source.config(), Compared::model);
  if (!difference) return;
  const std::string path = source.path().string();
  throw UsageError(
      fmt::format("{} = {}, but the model of --init {} has {}: set it so{}", difference->key, difference->now, path,
                  difference->saved,
                  std::filesystem::exists(source.path() / "config.toml")
                      ? fmt::format(", or take all its sizes with --config {}/config.toml", path)
                      : ", or take all its sizes from the config.toml that vqlm convert --from hf writes"));
}

}  // namespace vqlm
