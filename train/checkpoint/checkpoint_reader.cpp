#include "train/checkpoint/checkpoint_reader.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <algorithm>
#include <tuple>

#include "core/log.h"
#include "data/shards/sample_order.h"
#include "data/tokenizer/tokenizer_files.h"
#include "train/checkpoint/checkpoint_layout.h"
#include "train/checkpoint/checkpoint_verify.h"
#include "train/codes/map_seen.h"
#include "train/engine/planned_model.h"

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
    throw Error(
        fmt::format("{}: no checkpoint of this run can be read: {}", path.string(), fmt::join(unreadable, "; ")));
  }
  if (found.empty()) {
    throw Error(
        fmt::format("{}: neither a checkpoint (no manifest.json), nor a run folder with complete checkpoints in "
                    "checkpoints/, nor a Hugging Face folder (no config.json); name one of these",
                    path.string()));
  }
  for (const std::string& words : unreadable) log::warn("passed over: {}", words);
  return found.back().path;
}

CheckpointReader::CheckpointReader(std::filesystem::path folder, Verify verify)
    : folder_(std::move(folder)),
      manifest_(checked_manifest(folder_, verify)),
      config_(load_saved_config(folder_ / "config.toml")),
      file_(h5::File::open((folder_ / checkpoint_file).string())) {
  if (config_.model.vocab_size > 0) return;
  throw Error(fmt::format("{}: model.vocab_size is 0; a checkpoint's configuration says all sizes",
                          (folder_ / "config.toml").string()));
}

std::string CheckpointReader::description() const {
  return fmt::format("checkpoint, step {}", state().step);
}

std::vector<ModelSource::TensorInfo> CheckpointReader::tensors() const {
  std::vector<TensorInfo> infos;
  for (const LogicalTensor& tensor : logical_tensors(model(), head())) {
    checked_dataset(tensor.name, tensor.shape);
    infos.push_back({tensor.name, tensor.shape, "float32"});
  }
  return infos;
}

std::vector<std::filesystem::path> CheckpointReader::tokenizer_files() const {
  return vqlm::tokenizer_files(path());
}

std::optional<SavedRun> CheckpointReader::run() const {
  return SavedRun{.state = state(),
                  .has_optimizer = file_.exists(std::string(first_moment_prefix) + "model.norm.weight")};
}

bool CheckpointReader::trained_here() const {
  return ModelSource::trained_here() || file_.has_attribute(trained_here_attribute);
}

std::string CheckpointReader::tokenizer_sha256() const {
  return file_.string_attribute(tokenizer_attribute);
}

std::vector<TrainedSource> CheckpointReader::sources() const {
  if (file_.has_attribute(train_sources_attribute)) {
    return trained_sources_from_json(
        file_.string_attribute(train_sources_attribute),
        fmt::format("{}: attribute {}", (folder_ / checkpoint_file).string(), train_sources_attribute));
  }
  const std::int64_t tokens = file_.int_attribute(train_tokens_attribute);
  if (tokens == 0) return {};
  const bool known = file_.has_attribute(train_shards_attribute);
  return {{only_source, tokens, known ? file_.string_attribute(train_shards_attribute) : ""}};
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
  map.counted_tokens = clusters.has_attribute("counted_tokens") ? clusters.int_attribute("counted_tokens")
                                                                : counted_in_provenance(map.provenance);
  if (map.groups > 0) map.member_codes = file_.dataset(member_codes_dataset).read_all<std::uint8_t>();
  map.validate(file_.path());
  return map;
}

h5::Dataset CheckpointReader::dataset(const std::string& name) const {
  if (file_.exists(name)) return file_.dataset(name);
  throw Error(fmt::format("{}: has no tensor {}, which its configuration promises; the checkpoint is damaged",
                          file_.path(), name));
}

std::vector<float> CheckpointReader::read(const std::string& name, const Shape& offset, const Shape& extent) const {
  std::vector<float> values(static_cast<std::size_t>(extent.numel()));
  dataset(name).read(std::span(values), dims_of(offset), dims_of(extent));
  return values;
}

h5::Dataset CheckpointReader::checked_dataset(const std::string& name, const Shape& global_shape) const {
  h5::Dataset found = dataset(name);
  if (const h5::Dims shape = found.shape(); shape != dims_of(global_shape)) {
    throw Error(fmt::format("{}: tensor {} has shape ({}) instead of {}; the model asked for is another", file_.path(),
                            name, fmt::join(shape, ", "), global_shape.str()));
  }
  return found;
}

std::vector<float> CheckpointReader::read_box(const std::string& name, const Shape& global_shape,
                                              const Box& box) const {
  std::vector<float> values(static_cast<std::size_t>(box.extent.numel()));
  checked_dataset(name, global_shape).read(std::span(values), dims_of(box.offset), dims_of(box.extent));
  return values;
}

void CheckpointReader::load_training_state(Backend& backend, ParameterStore& parameters, const Optimizer& optimizer,
                                           HeadMoments head) const {
  for (std::size_t id = 0; id < parameters.parameters().size(); ++id) {
    const Parameter& p = parameters.parameters()[id];
    if (p.rule != UpdateRule::moving_average) continue;
    parameters.set_slice(static_cast<ParameterId>(id), read_box(p.name, p.global_shape, {p.offset, p.shape}));
  }
  load_moments(backend, parameters, optimizer, head);
}

void CheckpointReader::load_moments(Backend& backend, const ParameterStore& parameters, const Optimizer& optimizer,
                                    HeadMoments head) const {
  for (const Optimizer::OwnedSlice& slice : optimizer.owned_slices()) {
    const Parameter& p = parameters.parameters()[static_cast<std::size_t>(slice.parameter)];
    if (p.rule != UpdateRule::gradient) continue;  // no moments
    if (head == HeadMoments::none && belongs_to_head(p)) continue;
    const bool second = slice.second_begin != Optimizer::not_there;
    std::int64_t done = 0;
    for (const Box& part : boxes_of_range(p.shape, slice.begin, slice.begin + slice.count)) {
      const Box box{shifted(part.offset, p.offset), part.extent};
      const std::int64_t count = box.extent.numel();
      const std::vector<float> m = read_box(first_moment_prefix + p.name, p.global_shape, box);
      backend.copy_from_host(optimizer.first_moment().range(slice.moment_begin + done, count), m.data());
      if (second) {
        const std::vector<float> v = read_box(second_moment_prefix + p.name, p.global_shape, box);
        backend.copy_from_host(optimizer.second_moment().range(slice.second_begin + done, count), v.data());
      }
      done += count;
    }
  }
}

}  // namespace vqlm
