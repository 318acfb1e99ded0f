#include "train/config/role_ratios.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <vector>

#include "core/error.h"

namespace vqlm {

const RoleRatios& ratios_of(const OptimSection& optim, ParameterRole role) {
  switch (role) {
    case ParameterRole::block:
      return optim.blocks;
    case ParameterRole::embedding:
      return optim.embedding;
    case ParameterRole::head:
      return optim.head;
    case ParameterRole::table:
      return optim.tables;
    case ParameterRole::input_table:
      return optim.input_tables;
    case ParameterRole::gain:
      return optim.gains;
  }
  VQLM_ASSERT(false);
}

std::string rates_text(const OptimSection& optim, const ModelConfig& model) {
  std::vector<std::string> roles;
  for (const ParameterRole role : parameter_roles) {
    if (role == ParameterRole::input_table && model.ngram_tables.empty()) continue;
    const RoleRatios& of = ratios_of(optim, role);
    roles.push_back(
        fmt::format("{} {}, {}", name_of(role), optim.lr * of.lr_ratio, optim.weight_decay * of.decay_ratio));
  }
  return fmt::format("{}; highest rate and decay of {}",
                     optim.kind == OptimizerKind::muon ? "muon for the blocks' matrices, adamw for all else" : "adamw",
                     fmt::join(roles, "; "));
}

}  // namespace vqlm
