#include "train/checkpoint/checkpoint_writer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "data/atomic_file.h"
#include "data/h5.h"
#include "train/checkpoint/checkpoint_layout.h"
#include "train/checkpoint/checkpoint_reader.h"

namespace vqlm {
namespace {

constexpr const char* slice_table = "slices";

std::string rank_file(int rank) {
  return fmt::format("rank-{:05d}.h5", rank);
}

/// Writes this rank's slices of parameters and moments, each as boxes of its logical tensor, and a table of them.
class RankFileWriter {
 public:
  RankFileWriter(const std::filesystem::path& path, Backend& backend)
      : backend_(backend), file_(h5::File::create(path.string())) {}

  /// `values`: flat elements [begin, begin + count) of the parameter's local slice.
  void add(const std::string& name, const Parameter& p, std::int64_t begin, Tensor values) {
    std::vector<float> host(static_cast<std::size_t>(values.numel()));
    backend_.copy_to_host(host.data(), values);
    std::size_t done = 0;
    for (const Box& box : boxes_of_range(p.shape, begin, begin + values.numel())) {
      const auto count = static_cast<std::size_t>(box.extent.numel());
      const std::string dataset = fmt::format("{}/{}", name, next_[name]++);
      file_.create_dataset(dataset, h5::Type::f32, dims_of(box.extent))
          .write_all(std::span<const float>(host.data() + done, count));
      done += count;
      table_.push_back({{"name", name},
                        {"dataset", dataset},
                        {"global_shape", dims_of(p.global_shape)},
                        {"offset", dims_of(shifted(box.offset, p.offset))},
                        {"count", dims_of(box.extent)}});
    }
  }

  void finish() {
    const std::string text = table_.dump();
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
    file_.create_dataset(slice_table, h5::Type::u8, {text.size()}).write_all(std::span(bytes, text.size()));
    file_.close();
  }

 private:
  Backend& backend_;
  h5::File file_;
  std::map<std::string, int> next_;
  nlohmann::json table_ = nlohmann::json::array();
};

void write_rank_file(const std::filesystem::path& path, const CheckpointContents& contents) {
  RankFileWriter writer(path, contents.backend);
  for (const Optimizer::OwnedSlice& slice : contents.optimizer.owned_slices()) {
    if (!contents.optimizer.is_primary(slice.parameter)) continue;
    const Parameter& p = contents.parameters.parameters()[static_cast<std::size_t>(slice.parameter)];
    const auto moment = [&](Tensor all) { return all.range(slice.moment_begin, slice.count); };
    writer.add(p.name, p, slice.begin,
               contents.parameters.flat_values().range(p.flat_begin + slice.begin, slice.count));
    writer.add(first_moment_prefix + p.name, p, slice.begin, moment(contents.optimizer.first_moment()));
    writer.add(second_moment_prefix + p.name, p, slice.begin, moment(contents.optimizer.second_moment()));
  }
  writer.finish();
}

void write_map(h5::File& file, const CodeMap& map) {
  const auto vocab = static_cast<std::uint64_t>(map.vocab_size);
  auto clusters = file.create_dataset(cluster_of_token_dataset, h5::Type::i32, {vocab});
  clusters.write_all(std::span<const std::int32_t>(map.cluster_of_token));
  clusters.set_attribute("clusters", map.clusters);
  clusters.set_attribute("codes", static_cast<std::int64_t>(map.codes));
  clusters.set_attribute("groups", static_cast<std::int64_t>(map.groups));
  clusters.set_attribute("provenance", map.provenance);
  if (map.groups == 0) return;
  file.create_dataset(member_codes_dataset, h5::Type::u8, {vocab, static_cast<std::uint64_t>(map.groups)})
      .write_all(std::span<const std::uint8_t>(map.member_codes));
}

/// checkpoint.h5: every logical tensor whole, over the slices that the rank files' tables name.
void write_virtual_file(const std::filesystem::path& folder, int ranks, const CheckpointContents& contents) {
  struct Logical {
    h5::Dims shape;
    std::vector<h5::VirtualSource> sources;
  };
  std::map<std::string, Logical> tensors;
  for (int rank = 0; rank < ranks; ++rank) {
    const h5::File file = h5::File::open((folder / rank_file(rank)).string());
    const auto bytes = file.dataset(slice_table).read_all<std::uint8_t>();
    for (const auto& slice : nlohmann::json::parse(bytes)) {
      Logical& tensor = tensors[slice.at("name").get<std::string>()];
      tensor.shape = slice.at("global_shape").get<h5::Dims>();
      const auto count = slice.at("count").get<h5::Dims>();
      tensor.sources.push_back({.file = rank_file(rank),
                                .dataset = slice.at("dataset").get<std::string>(),
                                .source_shape = count,
                                .source_offset = h5::Dims(count.size(), 0),
                                .source_count = count,
                                .offset = slice.at("offset").get<h5::Dims>(),
                                .count = count});
    }
  }
  h5::File file = h5::File::create((folder / checkpoint_file).string());
  for (const auto& [name, tensor] : tensors) {
    std::uint64_t covered = 0;
    for (const h5::VirtualSource& source : tensor.sources) covered += h5::element_count(source.count);
    VQLM_ASSERT(covered == h5::element_count(tensor.shape));
    file.create_virtual_dataset(name, h5::Type::f32, tensor.shape, tensor.sources);
  }
  file.set_attribute(tokenizer_attribute, contents.tokenizer_sha256);
  file.set_attribute(train_tokens_attribute, contents.train_tokens);
  if (contents.map != nullptr) write_map(file, *contents.map);
  file.close();
}

void rename_into_place(const std::filesystem::path& partial, const std::filesystem::path& final_path) {
  // An earlier checkpoint of the same step makes way only while the complete new one waits beside it.
  const std::filesystem::path replaced = final_path.string() + ".partial.old";
  if (std::filesystem::exists(final_path)) std::filesystem::rename(final_path, replaced);
  std::filesystem::rename(partial, final_path);
  std::filesystem::remove_all(replaced);
  sync_to_disk(final_path.parent_path().string());
}

/// Removes what saves that were killed have left, and the oldest checkpoints.
void remove_old(const std::filesystem::path& folder, int keep) {
  std::vector<std::filesystem::path> unfinished;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().find(".partial") != std::string::npos)
      unfinished.push_back(entry.path());
  }
  for (const auto& path : unfinished) std::filesystem::remove_all(path);
  if (keep == 0) return;
  std::vector<std::filesystem::path> all = list_checkpoints(folder);
  while (static_cast<int>(all.size()) > keep) {
    std::filesystem::remove_all(all.front());
    all.erase(all.begin());
  }
}

/// What one rank adds to the rank files: the whole view, the configuration, the tokenizer and last the manifest.
void complete(const std::filesystem::path& partial, int ranks, const CheckpointContents& contents) {
  write_virtual_file(partial, ranks, contents);
  write_file_atomically((partial / "config.toml").string(), to_toml(contents.config));
  if (std::filesystem::exists(contents.tokenizer)) {
    std::filesystem::copy_file(contents.tokenizer, partial / "tokenizer.model");
  }
  write_manifest(partial, contents.state);
}

std::filesystem::path save(const std::filesystem::path& folder, const ProcessGrid& grid,
                           const CheckpointContents& contents, int keep) {
  const std::filesystem::path final_path = folder / checkpoint_name(contents.state.step);
  const std::filesystem::path partial = final_path.string() + ".partial";
  const int rank = grid.world().rank();
  const auto wait = grid.world().expect_long_wait("writing the checkpoint " + final_path.string());
  if (rank == 0) {
    std::filesystem::remove_all(partial);
    std::filesystem::create_directories(partial);
  }
  grid.world().barrier();
  write_rank_file(partial / rank_file(rank), contents);
  grid.world().barrier();
  if (rank == 0) {
    complete(partial, grid.world().size(), contents);
    rename_into_place(partial, final_path);
    remove_old(folder, keep);
  }
  grid.world().barrier();
  return final_path;
}

}  // namespace

std::string checkpoint_name(std::int64_t step) {
  return fmt::format("step-{:08d}", step);
}

std::filesystem::path save_checkpoint(const std::filesystem::path& folder, const ProcessGrid& grid,
                                      const CheckpointContents& contents, int keep) {
  try {
    return save(folder, grid, contents, keep);
  } catch (const std::filesystem::filesystem_error& e) {
    throw Error(fmt::format(
        "{}: the checkpoint of step {} cannot be written: {}; make room, and continue with --resume "
        "from the one before",
        e.path1().string(), contents.state.step, e.code().message()));
  }
}

}  // namespace vqlm
