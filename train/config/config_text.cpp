// A configuration as text: what a run's config.toml and --help show.
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <string_view>

#include "train/config/config.h"
#include "train/config/config_keys.h"
#include "train/config/source_tables.h"

namespace vqlm {

using config_keys::Choice;
using config_keys::Key;

std::string to_toml(const Config& config) {
  std::string text;
  std::string_view section;
  for (const Key& key : config_keys::all()) {
    if (key.missing(config) != nullptr) continue;
    // In TOML a name is one value or tables.
    if (!config.data.heldout_sets.empty() && key.full_name() == "data.heldout") continue;
    if (key.section != section) {
      text += fmt::format("{}[{}]\n", section.empty() ? "" : "\n", key.section);
      section = key.section;
    }
    text += fmt::format("{} = {}\n", key.name, key.text(config));
  }
  return text + source_tables::to_toml(config.data);
}

std::vector<std::string> keys_named(std::string_view name) {
  std::vector<std::string> found;
  for (const Key& key : config_keys::all()) {
    if (key.name == name) found.push_back(key.full_name());
  }
  return found;
}

std::string describe_keys() {
  std::string text;
  for (const Key& key : config_keys::all()) {
    std::string help(key.help);
    if (const auto* choice = std::get_if<Choice>(&key.member))
      help += fmt::format(" ({})", fmt::join(choice->words, ", "));
    text += fmt::format("  {:<24} {:<16} {}\n", key.full_name(), key.text(config_keys::with_key({}, key)), help);
  }
  return text + source_tables::describe();
}

}  // namespace vqlm
