#include "train/checkpoint/trained_source.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace vqlm {

std::vector<TrainedSource> trained_sources(const ShardSet& shards) {
  std::vector<TrainedSource> sources;
  for (std::size_t i = 0; i < shards.parts().size(); ++i) {
    const ShardSet part = shards.part(i);
    sources.push_back(
        {shards.parts()[i].source.name, static_cast<std::int64_t>(part.total_tokens()), part.fingerprint()});
  }
  return sources;
}

std::string to_json(const std::vector<TrainedSource>& sources) {
  nlohmann::json list = nlohmann::json::array();
  for (const TrainedSource& source : sources)
    list.push_back({{"name", source.name}, {"tokens", source.tokens}, {"shards", source.shards}});
  return list.dump();
}

std::vector<TrainedSource> trained_sources_from_json(const std::string& text, const std::string& origin) {
  std::vector<TrainedSource> sources;
  try {
    for (const auto& item : nlohmann::json::parse(text))
      sources.push_back({item.at("name"), item.at("tokens"), item.at("shards")});
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: is not a list of sources ({}); the file is damaged", origin, error.what()));
  }
  return sources;
}

}  // namespace vqlm
