#include "train/run/sample_place.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "data/shards/token_shards.h"

namespace vqlm {

namespace {

constexpr std::size_t most_tables = 16;  // of a large shard some 10 MB each

}  // namespace

SamplePlaces::SamplePlaces(ShardSet shards, SampleOrder order, std::uint64_t seq_len)
    : shards_(std::move(shards)), order_(std::move(order)), seq_len_(seq_len) {}

const SamplePlaces::Tables& SamplePlaces::tables(std::size_t shard) {
  if (const auto known = tables_.find(shard); known != tables_.end()) return known->second;
  if (tables_.size() == most_tables) tables_.clear();
  const ShardReader reader(shards_.shards()[shard].path);
  const std::vector<SourceFile>& files = reader.meta().sources;
  return tables_[shard] = {.documents = reader.documents(),
                           .records = reader.records(),
                           .file = files.size() == 1 ? files[0].path : ""};
}

SamplePlace SamplePlaces::at(std::uint64_t position) {
  SamplePlace place{.position = position, .source = {}, .sample = order_.at(position), .documents = {}};
  place.source = order_.name(place.sample.source);
  std::uint64_t token = place.sample.first_token;
  const std::uint64_t end = token + seq_len_;
  while (token < end) {
    const std::size_t number = shards_.shard_of(token);
    const ShardSet::Shard& shard = shards_.shards()[number];
    const Tables& of_shard = tables(number);
    while (token < end && token < shard.first_token + shard.tokens) {
      const std::uint64_t at = token - shard.first_token;
      const auto next = std::ranges::upper_bound(of_shard.documents, at);
      const auto document = static_cast<std::size_t>(next - of_shard.documents.begin()) - 1;
      const std::uint64_t tokens = std::min(*next - at, end - token);
      place.documents.push_back(
          {.shard = shard.path,
           .token = token,
           .document = document,
           .shard_token = at,
           .offset = at - of_shard.documents[document],
           .tokens = tokens,
           .file = of_shard.file,
           .record = of_shard.records.empty() ? -1 : static_cast<std::int64_t>(of_shard.records[document])});
      token += tokens;
    }
  }
  return place;
}

std::string describe(const SamplePlace& place) {
  const SampleDocument& most = *std::ranges::max_element(place.documents, {}, &SampleDocument::tokens);
  std::string text = fmt::format("{} document {} from its token {}", most.shard, most.document, most.offset);
  if (most.record >= 0) text += fmt::format(" (record {} of {})", most.record, most.file);
  if (place.documents.size() > 1) text += fmt::format(" and {} more", place.documents.size() - 1);
  return text;
}

}  // namespace vqlm
