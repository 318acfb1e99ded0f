#include "train/checkpoint/checkpoint_reader.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <tuple>

#include "core/log.h"
#include "train/checkpoint/checkpoint_layout.h"
#include "train/checkpoint/checkpoint_verify.h"

namespace vqlm {
namespace {

Manifest checked_manifest(const std::filesystem::path& folder, Verify verify) {
  Manifest manifest = read_manifest(folder);
  if (verify == Verify::no) return manifest;
  if (const std::string damage = find_damage(folder, manifest); !damage.empty()) {
    throw Error(damage + "; remove this folder, and the checkpoint before it is the newest");
  }
  return manifest;
}

}  // namespace

std::vector<ListedCheckpoint> list_checkpoints(const std::filesystem::path& folder,
                                               std::vector<std::string>* unreadable) {
  std::vector<ListedCheckpoint> found;
  if (!std::filesystem::is_directory(folder)) return {};
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || name.find(".partial") != std::string::npos) continue;
    try {
      found.push_back({read_manifest(entry.path()).state.step, entry.path()});
    } catch (const Error& error) {
      if (unreadable != nullptr) unreadable->push_back(error.what());
    }
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return std::tie(a.step, a.path) < std::tie(b.step, b.path); });
  return found;
}

std::filesystem::path find_checkpoint(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / "manifest.json")) return path;
  std::vector<std::string> unreadable;
  const auto found = list_checkpoints(path / "checkpoints", &unreadable);
  if (found.empty() && !unreadable.empty()) {
    throw Error(fmt::format("{}: no checkpoint of this run can be read: {}", path.string(),
                            fmt::join(unreadable, "; ")));
  }
  if (found.empty()) {
    throw Error(
        fmt::format("{}: neither a checkpoint (no manifest.json), nor a run folder with complete checkpoints "
                    "in checkpoints/, "
                    "nor a Hugging Face folder (no config.json); name one of these",
                    path.string()));
  }
  for (const std::string& words : unreadable) log::warn("passed over: {}", words);
  return found.back().path;
}

CheckpointReader::CheckpointReader(std::filesystem::path folder, Verify verify)
    : folder_(std::move(folder)),
      manifest_(checked_manifest(folder_, verify)),
      config_(load_config(folder_ / "config.toml")),
      file_(h5::File::open((folder_ / checkpoint_file).string())) {}

std::string CheckpointReader::tokenizer_sha256() const {
  return file_.string_attribute(tokenizer_attribute);
}

std::int64_t CheckpointReader::train_tokens() const {
  return file_.int_attribute(train_tokens_attribute);
}

std::optional<CodeMap> CheckpointReader::code_map() const {
  if (!file_.exists(cluster_of_token_dataset)) return std::nullopt;
  const h5::Dataset clusters = file_.dataset(cluster_of_token_dataset);
  CodeMap map;
  map.cluster_of_token = clusters.read_all<std::int32_t>();
  map.vocab_size = static_cast<std::int64_t>(map.cluster_of_token.size());
  map.clusters = clusters.int_attribute("clusters");
  map.groups = static_cast<int>(clusters.int_attribute("groups"));
  map.codes = static_cast<int>(clusters.int_attribute("codes"));
  map.provenance = clusters.string_attribute("provenance");
  if (map.groups > 0) map.member_codes = file_.dataset(member_codes_dataset).read_all<std::uint8_t>();
  map.validate(file_.path());
  return map;
}

std::vector<float> CheckpointReader::read_box(const std::string& name, const Shape& global_shape,
                                              const Shape& offset, const Shape& extent) const {
  if (!file_.exists(name)) {
    throw Error(fmt::format("{}: has no tensor {}; its model or head is another than the one asked for",
                            file_.path(), name));
  }
  const h5::Dataset dataset = file_.dataset(name);
  if (dataset.shape() != dims_of(global_shape)) {
    throw Error(fmt::format("{}: tensor {} has shape ({}) instead of {}; the model asked for is another",
                            file_.path(), name, fmt::join(dataset.shape(), ", "), global_shape.str()));
  }
  std::vector<float> values(static_cast<std::size_t>(extent.numel()));
  dataset.read(std::span(values), dims_of(offset), dims_of(extent));
  return values;
}

void CheckpointReader::load_parameters(ParameterStore& parameters) const {
  for (std::size_t id = 0; id < parameters.parameters().size(); ++id) {
    const Parameter& p = parameters.parameters()[id];
    const std::vector<float> values = read_box(p.name, p.global_shape, p.offset, p.shape);
    parameters.set_slice(static_cast<ParameterId>(id), values);
  }
}

void CheckpointReader::load_optimizer(Backend& backend, const ParameterStore& parameters,
                                      const Optimizer& optimizer) const {
  for (const Optimizer::OwnedSlice& slice : optimizer.owned_slices()) {
    const Parameter& p = parameters.parameters()[static_cast<std::size_t>(slice.parameter)];
    if (p.rule != UpdateRule::gradient) continue;  // no moments
    std::int64_t begin = slice.moment_begin;
    for (const Box& box : boxes_of_range(p.shape, slice.begin, slice.begin + slice.count)) {
      const Shape offset = shifted(box.offset, p.offset);
      const std::int64_t count = box.extent.numel();
      const std::vector<float> m = read_box(first_moment_prefix + p.name, p.global_shape, offset, box.extent);
      const std::vector<float> v =
          read_box(second_moment_prefix + p.name, p.global_shape, offset, box.extent);
      backend.copy_from_host(optimizer.first_moment().range(begin, count), m.data());
      backend.copy_from_host(optimizer.second_moment().range(begin, count), v.data());
      begin += count;
    }
  }
}

}  // namespace vqlm
