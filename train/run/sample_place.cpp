#include "train/run/sample_place.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/error.h"
#include "data/shards/token_shards.h"

namespace vqlm {

SamplePlace sample_place(ShardSet& shards, SampleOrder& order, std::uint64_t position, std::uint64_t seq_len) {
  SamplePlace place{.position = position, .source = {}, .sample = order.at(position), .documents = {}};
  place.source = order.name(place.sample.source);
  std::uint64_t token = place.sample.first_token;
  const std::uint64_t end = token + seq_len;
  while (token < end) {
    const ShardSet::Shard& shard = shards.shards()[shards.shard_of(token)];
    const ShardReader reader(shard.path);
    const std::vector<std::uint64_t> offsets = reader.documents();
    const std::vector<std::uint64_t> records = reader.records();
    const std::string file = reader.meta().sources.size() == 1 ? reader.meta().sources[0].path : "";
    while (token < end && token < shard.first_token + shard.tokens) {
      const std::uint64_t at = token - shard.first_token;
      const auto next = std::ranges::upper_bound(offsets, at);
      const auto document = static_cast<std::size_t>(next - offsets.begin()) - 1;
      const std::uint64_t tokens = std::min(*next - at, end - token);
      place.documents.push_back({.shard = shard.path,
                                 .document = document,
                                 .shard_token = at,
                                 .offset = at - offsets[document],
                                 .tokens = tokens,
                                 .file = file,
                                 .record = records.empty() ? -1 : static_cast<std::int64_t>(records[document])});
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
