#include "train/checkpoint/virtual_file.h"

#include <map>

#include "data/shards/sample_order.h"
#include "train/checkpoint/checkpoint_layout.h"

namespace vqlm {
namespace {

void write_map(h5::File& file, const CodeMap& map) {
  const auto vocab = static_cast<std::uint64_t>(map.vocab_size);
  auto clusters = file.create_dataset(cluster_of_token_dataset, h5::Type::i32, {vocab});
  clusters.write_all(std::span<const std::int32_t>(map.cluster_of_token));
  clusters.set_attribute("clusters", map.clusters);
  clusters.set_attribute("codes", static_cast<std::int64_t>(map.codes));
  clusters.set_attribute("groups", static_cast<std::int64_t>(map.groups));
  clusters.set_attribute("provenance", map.provenance);
  clusters.set_attribute("counted_tokens", map.counted_tokens);
  clusters.close();
  if (map.groups == 0) return;
  const auto groups = static_cast<std::uint64_t>(map.groups);
  auto codes = file.create_dataset(member_codes_dataset, h5::Type::u8, {vocab, groups});
  codes.write_all(std::span<const std::uint8_t>(map.member_codes));
  codes.close();
}

struct Logical {
  h5::Dims shape;
  std::vector<h5::VirtualSource> sources;
};

std::map<std::string, Logical> logical_tensors(const std::vector<RankTable>& tables) {
  std::map<std::string, Logical> tensors;
  for (const RankTable& table : tables) {
    for (const FileSlice& slice : table.slices) {
      Logical& tensor = tensors[slice.tensor];
      tensor.shape = slice.global_shape;
      tensor.sources.push_back({.file = table.file,
                                .dataset = slice.dataset,
                                .source_shape = slice.count,
                                .source_offset = h5::Dims(slice.count.size(), 0),
                                .source_count = slice.count,
                                .offset = slice.offset,
                                .count = slice.count});
    }
  }
  return tensors;
}

}  // namespace

namespace {

void write_sources(h5::File& file, const std::vector<TrainedSource>& sources) {
  std::int64_t tokens = 0;
  for (const TrainedSource& source : sources) tokens += source.tokens;
  file.set_attribute(train_tokens_attribute, tokens);
  if (sources.size() == 1 && sources[0].name == only_source) {
    if (!sources[0].shards.empty()) file.set_attribute(train_shards_attribute, sources[0].shards);
  } else if (!sources.empty()) {
    file.set_attribute(train_sources_attribute, to_json(sources));
  }
}

}  // namespace

void write_virtual_file(const std::filesystem::path& folder, const std::vector<RankTable>& tables,
                        const VirtualFileExtras& extras) {
  h5::File file = h5::File::create((folder / checkpoint_file).string());
  for (const auto& [name, tensor] : logical_tensors(tables)) {
    std::uint64_t covered = 0;
    for (const h5::VirtualSource& source : tensor.sources) covered += h5::element_count(source.count);
    VQLM_ASSERT(covered == h5::element_count(tensor.shape));
    file.create_virtual_dataset(name, h5::Type::f32, tensor.shape, tensor.sources).close();
  }
  file.set_attribute(tokenizer_attribute, extras.tokenizer_sha256);
  write_sources(file, extras.sources);
  if (extras.trained_here) file.set_attribute(trained_here_attribute, std::int64_t{1});
  if (extras.map != nullptr) write_map(file, *extras.map);
  file.close();
}

}  // namespace vqlm
