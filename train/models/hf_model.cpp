#include "train/models/hf_model.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/box.h"
#include "core/error.h"
#include "core/model/head/band_map.h"
#include "data/files/atomic_file.h"
#include "data/files/safetensors.h"
#include "data/tokenizer/tokenizer_files.h"
#include "train/codes/map_seen.h"
#include "train/engine/planned_model.h"
#include "train/models/hf_body.h"
#include "train/models/hf_config.h"

namespace vqlm {

namespace {

constexpr const char* cluster_tensor = "lm_head.cluster_of_token";
constexpr const char* codes_tensor = "lm_head.member_codes";

std::string float_type_of(const std::string& dtype) {
  if (dtype == "F32") return "float32";
  if (dtype == "BF16") return "bfloat16";
  return dtype == "F16" ? "float16" : dtype;
}

std::string config_text(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  if (!std::filesystem::exists(file)) {
    throw Error(
        fmt::format("{}: has no config.json; name the folder that holds it and the safetensors", folder.string()));
  }
  return read_file(file.string());
}

class HfModel : public ModelSource {
 public:
  explicit HfModel(const std::filesystem::path& folder)
      : path_(folder),
        config_(parse_hf_config(config_text(folder), (folder / "config.json").string())),
        weights_(folder),
        logical_(logical_tensors(config_.model, config_.head)) {
    check_tensors();
    if (config_.model.tie_embeddings && weights_.tensors().contains("lm_head.weight")) check_tied();
    if (map_sizes(config_.head)) read_map();
  }

  const std::filesystem::path& path() const override { return path_; }
  std::string description() const override { return "Hugging Face " + config_.architecture; }
  const ModelConfig& model() const override { return config_.model; }
  const HeadConfig& head() const override { return config_.head; }
  std::optional<CodeMap> code_map() const override { return map_; }
  std::vector<TensorInfo> tensors() const override;
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override {
    const SafetensorsFolder::Place& place = weights_.find(hf_tensor_name(name));
    std::vector<float> values = place.file->read(*place.entry, offset, extent);
    if (const float added = hf_offset(config_.family, name); added != 0)
      for (float& value : values) value += added;
    return values;
  }
  std::vector<std::filesystem::path> tokenizer_files() const override { return vqlm::tokenizer_files(path_); }
  std::string generation_config() const override;
  std::string tokenizer_sha256() const override { return tokenizer_identity(path_); }
  /// Contexts that were stretched after training (131072 in Llama 3.1) are no length of training samples.
  std::int64_t seq_len() const override { return config_.max_positions <= 4096 ? config_.max_positions : 0; }

 private:
  void check_tensors() const;
  void check_extra(const std::set<std::string>& expected) const;
  void check_tied() const;
  void read_map();
  std::vector<std::int64_t> read_integers(const char* name, const std::vector<std::int64_t>& shape) const;

  std::filesystem::path path_;
  HfConfig config_;
  SafetensorsFolder weights_;
  std::vector<LogicalTensor> logical_;
  std::optional<CodeMap> map_;
};

std::string HfModel::generation_config() const {
  if (std::filesystem::exists(path_ / "generation_config.json")) return "";
  const auto config = nlohmann::json::parse(config_text(path_));
  nlohmann::ordered_json told = {{"_from_model_config", true}};
  for (const char* key : {"bos_token_id", "eos_token_id"}) {
    if (config.contains(key) && !config[key].is_null()) told[key] = config[key];
  }
  return told.size() == 1 ? "" : told.dump(2) + "\n";
}

std::vector<ModelSource::TensorInfo> HfModel::tensors() const {
  std::vector<TensorInfo> infos;
  for (const LogicalTensor& tensor : logical_) {
    const SafetensorsFolder::Place& place = weights_.find(hf_tensor_name(tensor.name));
    infos.push_back({tensor.name, tensor.shape, float_type_of(place.entry->dtype)});
  }
  return infos;
}

void HfModel::check_tensors() const {
  std::set<std::string> expected;
  for (const LogicalTensor& tensor : logical_) {
    const std::string name = hf_tensor_name(tensor.name);
    expected.insert(name);
    const SafetensorsFolder::Place& place = weights_.find(name);
    const std::vector<std::int64_t>& shape = place.entry->shape;
    bool same = static_cast<int>(shape.size()) == tensor.shape.rank();
    for (int axis = 0; same && axis < tensor.shape.rank(); ++axis)
      same = shape[static_cast<std::size_t>(axis)] == tensor.shape[axis];
    if (!same) {
      throw Error(fmt::format("{}: tensor {}: has shape {}, where config.json means {}", place.file->path(), name,
                              place.entry->shape_str(), tensor.shape.str()));
    }
    if (const std::string& dtype = place.entry->dtype; dtype != "F32" && dtype != "F16" && dtype != "BF16") {
      throw Error(fmt::format("{}: tensor {}: type {} is not supported: only F32, F16 and BF16 are", place.file->path(),
                              name, dtype));
    }
  }
  check_extra(expected);
}

/// What is left over would be a part of the model that this program does not compute.
void HfModel::check_extra(const std::set<std::string>& expected) const {
  for (const auto& [name, place] : weights_.tensors()) {
    const bool table =
        name.ends_with(".rotary_emb.inv_freq");  // written by older transformers; a function of rope_theta
    const bool tied = config_.model.tie_embeddings && name == "lm_head.weight";
    const bool map = map_sizes(config_.head) && (name == cluster_tensor || name == codes_tensor);
    if (table || tied || map || expected.contains(name)) continue;
    throw Error(fmt::format("{}: tensor {} of shape {} has no place in a model as config.json describes it",
                            place.file->path(), name, place.entry->shape_str()));
  }
}

/// Some files hold the shared matrix twice. A different second one would be lost without a word.
void HfModel::check_tied() const {
  const Shape shape{config_.model.vocab_size, config_.model.d_model};
  for (const Box& box : row_boxes(shape)) {
    if (read("model.embed_tokens.weight", box.offset, box.extent) != read("lm_head.weight", box.offset, box.extent)) {
      throw Error(
          fmt::format("{}: config.json: tie_word_embeddings = true, but lm_head.weight is another matrix than "
                      "model.embed_tokens.weight; set it to false",
                      path_.string()));
    }
  }
}

std::vector<std::int64_t> HfModel::read_integers(const char* name, const std::vector<std::int64_t>& shape) const {
  const SafetensorsFolder::Place& place = weights_.find(name);
  if (place.entry->shape != shape) {
    throw Error(fmt::format("{}: tensor {}: has shape {}, which does not fit config.json", place.file->path(), name,
                            place.entry->shape_str()));
  }
  return place.file->read_integers(*place.entry);
}

void HfModel::read_map() {
  const MapSizes sizes = map_sizes(config_.head).value();
  CodeMap map{.vocab_size = config_.model.vocab_size,
              .clusters = sizes.clusters,
              .groups = sizes.groups,
              .codes = sizes.codes,
              .cluster_of_token = {},
              .member_codes = {},
              .provenance = config_.map_provenance,
              .counted_tokens = counted_in_provenance(config_.map_provenance)};
  const std::string origin = weights_.find(cluster_tensor).file->path() + ": the code map";
  for (const std::int64_t cluster : read_integers(cluster_tensor, {map.vocab_size}))
    map.cluster_of_token.push_back(cluster < 0 || cluster >= map.clusters ? -1 : static_cast<std::int32_t>(cluster));
  if (map.groups > 0) {
    for (const std::int64_t code : read_integers(codes_tensor, {map.vocab_size, map.groups})) {
      if (code < 0 || code >= map.codes)
        throw Error(fmt::format("{}: sub-code {} is not in [0, {})", origin, code, map.codes));
      map.member_codes.push_back(static_cast<std::uint8_t>(code));
    }
  }
  map.validate(origin);
  if (const auto* adaptive = adaptive_of(config_.head)) check_band_map(map, *adaptive, origin);
  map_ = std::move(map);
}

}  // namespace

std::string hf_tensor_name(const std::string& name) {
  constexpr std::string_view ours = "vq_head.";
  return name.starts_with(ours) ? "lm_head." + name.substr(ours.size()) : name;
}

std::unique_ptr<ModelSource> open_hf_model(const std::filesystem::path& path) {
  return std::make_unique<HfModel>(path);
}

}  // namespace vqlm
