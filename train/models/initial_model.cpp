#include "train/models/initial_model.h"

#include <spdlog/fmt/fmt.h>

#include <map>
#include <sstream>

#include "core/error.h"

namespace vqlm {
namespace {

/// Values by "section.key", as they stand in a configuration file: keys that are added later are compared without a word
/// here.
std::map<std::string, std::string> values_of(const Config& config) {
  std::map<std::string, std::string> values;
  std::istringstream text(to_toml(config));
  std::string section;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("[")) section = line.substr(1, line.size() - 2) + ".";
    const std::size_t equals = line.find(" = ");
    if (equals != std::string::npos) values[section + line.substr(0, equals)] = line.substr(equals + 3);
  }
  return values;
}

/// Keys of other heads, and those of how a head learns or how its map was made: the map comes with the parameters.
bool matters(const std::string& key, const HeadConfig& head) {
  if (key.starts_with("model.")) return true;
  if (key == "head.kind" || key == "head.bias") return true;
  if (head.kind == HeadKind::dense) return false;
  if (key == "head.codes") return head.groups > 0;
  if (key == "head.member_rank" || key == "head.member_scale" || key == "head.member_mean") {
    return head.members == MemberVectors::embedding;
  }
  if (key == "head.input_codes") return true;
  return key == "head.clusters" || key == "head.groups" || key == "head.members";
}

}  // namespace

void check_initial_model(const Config& config, const ModelSource& source) {
  Config own = config;
  own.model = source.model();
  own.head = source.head();
  const auto wanted = values_of(config);
  const std::string path = source.path().string();
  for (const auto& [key, value] : values_of(own)) {
    if (!matters(key, source.head()) || wanted.at(key) == value) continue;
    throw UsageError(fmt::format(
        "{} = {}, but the model of --init {} has {}: set it so{}", key, wanted.at(key), path, value,
        std::filesystem::exists(source.path() / "config.toml")
            ? fmt::format(", or take all its sizes with --config {}/config.toml", path)
            : ", or take all its sizes from the config.toml that vqlm convert --from hf writes"));
  }
}

}  // namespace vqlm
