#include "train/config/removed_keys.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "core/error.h"
#include "core/log.h"

namespace vqlm {
namespace {

bool by_embedding(const Config& config) {
  const auto* vq = vq_of(config.head);
  return vq != nullptr && vq->by_embedding();
}

double number_of(const RemovedKey& key) {
  return std::strtod(key.value.c_str(), nullptr);
}

bool always_off(const RemovedKey&, const Config&) {
  return true;
}

enum class Matter { model, training };

struct Rule {
  std::string_view name;
  bool (*was_off)(const RemovedKey& key, const Config& config);
  Matter matter;
  std::string_view why;  // what is so now, and the way out
};

constexpr std::array rules = {
    Rule{"head.member_rank",
         [](const RemovedKey& key, const Config& config) {
           const double rank = number_of(key);
           return !by_embedding(config) || rank == 0 || rank == static_cast<double>(config.model.d_model);
         },
         Matter::model,
         "members are scored with all columns of the embedding now, since fewer measured worse; train the model anew "
         "without the key, or use the version of vqlm that trained it"},
    Rule{"head.member_scale",
         [](const RemovedKey& key, const Config& config) { return !by_embedding(config) || number_of(key) == 1; },
         Matter::model,
         "the embedding's rows are members as they are now, which measured best; train the model anew without the key "
         "(optim.embedding_lr_ratio says how fast the table learns), or use the version of vqlm that trained it"},
    // What a learned map was re-fit by; that a run's map was learned is what head.map says.
    Rule{"head.refit_every", always_off, Matter::training, ""},
    Rule{"head.refit_until", always_off, Matter::training, ""},
    Rule{"head.refit_dims", always_off, Matter::training, ""},
    Rule{"head.dead_code_share",
         [](const RemovedKey& key, const Config& config) {
           const auto* vq = vq_of(config.head);
           return vq == nullptr || !vq->averages() || number_of(key) == 0;
         },
         Matter::training, "codes that no token asks for are not revived any more (in measured runs none died)"},
};

const Rule* rule_of(std::string_view name) {
  const auto* const found =
      std::find_if(rules.begin(), rules.end(), [&](const Rule& rule) { return rule.name == name; });
  return found == rules.end() ? nullptr : found;
}

}  // namespace

std::string_view renamed_key(std::string_view full_name) {
  return full_name == "optim.muon_lr_ratio" ? "optim.blocks_lr_ratio" : full_name;
}

bool is_removed_key(std::string_view full_name) {
  return rule_of(full_name) != nullptr;
}

void check_removed_keys(const std::vector<RemovedKey>& found, const Config& config) {
  for (const RemovedKey& key : found) {
    const Rule* const rule = rule_of(key.name);
    VQLM_ASSERT(rule != nullptr);
    if (rule->was_off(key, config)) continue;
    const std::string message =
        fmt::format("{}: {} = {} is no key any more: {}", key.origin, key.name, key.value, rule->why);
    if (rule->matter == Matter::model) throw UsageError(message);
    log::info("{}", message);
  }
}

}  // namespace vqlm
