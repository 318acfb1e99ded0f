#include "train/models/initial_model.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"
#include "train/config/same_model.h"

namespace vqlm {

void check_initial_model(const Config& config, const ModelSource& source) {
  const auto difference = first_difference(config, source.config(), Compared::model);
  if (!difference) return;
  throw UsageError(fmt::format(
      "{} = {}, but the model of --init {} has {}: set it so, or leave it out: what the configuration does not "
      "say of model and head is the model's",
      difference->key, difference->now, source.path().string(), difference->saved));
}

}  // namespace vqlm
