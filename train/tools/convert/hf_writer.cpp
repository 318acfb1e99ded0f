#include "train/tools/convert/hf_writer.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <vector>

#include "core/box.h"
#include "core/error.h"
#include "data/files/atomic_file.h"
#include "data/files/safetensors_writer.h"
#include "train/config/ngram_tables.h"
#include "train/engine/planned_model.h"
#include "train/models/hf_body.h"
#include "train/models/hf_config.h"
#include "train/models/hf_model.h"
#include "train/models/multiplied_head.h"
#include "train/tools/convert/expanded_head.h"
#include "train/tools/convert/hf_tokenizer.h"
#include "train/tools/convert/native_form.h"

namespace vqlm {

namespace {

/// Rows of an expanded matrix made at a time, in bytes of f32.
constexpr std::int64_t block_bytes = 16 << 20;

std::string stored_type(const std::string& dtype) {
  if (dtype == "float32") return "F32";
  if (dtype == "bfloat16") return "BF16";
  if (dtype == "float16") return "F16";
  throw UsageError(fmt::format("--dtype = \"{}\" is unknown: choose float32, bfloat16 or float16", dtype));
}

/// Which form the model takes, and its tensors.
class HfFolder {
 public:
  HfFolder(const ModelSource& source, const HfWriteOptions& options)
      : source_(source), type_(stored_type(options.dtype)) {
    config_.model = source.model();
    config_.family = hf_family_of(source.model(), source.path().string()).model_type;
    config_.head = source.head();
    config_.max_positions = source.seq_len() > 0 ? source.seq_len() : 2048;
    if (map_sizes(source.head())) map_ = source.code_map().value();
    choose_form(options.expand);
    if (map_) config_.map_provenance = map_->provenance;
    logical_ = logical_tensors(config_.model, config_.head);
  }

  const HfConfig& config() const { return config_; }
  std::vector<SafetensorsSpec> tensors() const;
  void append(const SafetensorsSpec& tensor, SafetensorsWriter& file) const;

 private:
  void choose_form(bool expand);
  void append_expanded(SafetensorsWriter& file) const;

  const ModelSource& source_;
  std::string type_;
  HfConfig config_;
  std::vector<LogicalTensor> logical_;
  std::optional<CodeMap> map_;
  std::optional<ExpandedHead> expanded_;  // of a VQ head that becomes a matrix
};

void HfFolder::choose_form(bool expand) {
  const bool dense = kind_of(source_.head()) == HeadKind::dense;
  const std::vector<NgramTable>& tables = source_.model().ngram_tables;
  if (expand && !tables.empty()) {
    throw Error(
        fmt::format("{}: --expand: no stock class has tables at the input (input.tables = {}); leave --expand out for "
                    "the native form",
                    source_.path().string(), ngram_tables_text(tables)));
  }
  if (!tables.empty() || (!expand && !dense)) {
    config_.native = true;
    return;
  }
  ExpandedHead head = expand_head(source_);
  const bool biased = std::ranges::any_of(head.constants, [](double constant) { return constant != 0; });
  const float cap = softcap_of(source_.head());
  const HfFamily& family = hf_family(config_.family);
  const bool caps = cap == 0 || family.gemma;  // whose class has the cap; no other's has
  if (!expand) {
    config_.native = biased || !caps;
  } else if (!caps || (cap > 0 && biased)) {  // behind a cap not even a bias that all tokens share falls away
    throw Error(
        fmt::format("{}: --expand: {} does not cap logits{}, and this head does (head.softcap = {}); leave "
                    "--expand out for the native form",
                    source_.path().string(), family.architecture, caps ? " with a bias" : "", cap));
  } else {
    check_no_bias(head, source_);
  }
  if (config_.native) return;
  config_.head = DenseHeadConfig{.bias = false, .softcap = cap};
  if (dense) return;
  map_.reset();
  expanded_ = std::move(head);
}

std::vector<SafetensorsSpec> HfFolder::tensors() const {
  std::vector<SafetensorsSpec> specs;
  for (const LogicalTensor& tensor : logical_) specs.push_back({hf_tensor_name(tensor.name), type_, tensor.shape});
  if (!map_) return specs;
  specs.push_back({"lm_head.cluster_of_token", "I32", {map_->vocab_size}});
  if (map_->groups > 0) specs.push_back({"lm_head.member_codes", "U8", {map_->vocab_size, map_->groups}});
  return specs;
}

void HfFolder::append(const SafetensorsSpec& tensor, SafetensorsWriter& file) const {
  if (tensor.dtype == "I32") return file.append(std::span(map_->cluster_of_token));
  if (tensor.dtype == "U8") return file.append(std::span(map_->member_codes));
  if (expanded_ && tensor.name == "lm_head.weight") return append_expanded(file);
  for (const LogicalTensor& logical : logical_) {
    if (hf_tensor_name(logical.name) != tensor.name) continue;
    const float added = hf_offset(config_.family, logical.name);
    for (const Box& box : row_boxes(tensor.shape)) {
      std::vector<float> values = source_.read(logical.name, box.offset, box.extent);
      if (added != 0)
        for (float& value : values) value -= added;
      file.append(std::span<const float>(values));
    }
  }
}

void HfFolder::append_expanded(SafetensorsWriter& file) const {
  const std::int64_t width = config_.model.d_model;
  const std::vector<float> codebook =
      source_.read(expanded_->matrix, {0, 0}, {std::get<VqHeadConfig>(source_.head()).clusters, width});
  const std::int64_t rows = std::max<std::int64_t>(1, block_bytes / (4 * width));
  std::vector<float> block;
  for (std::size_t v = 0; v < expanded_->row_of_token.size(); ++v) {
    const auto row = codebook.begin() + expanded_->row_of_token[v] * width;
    block.insert(block.end(), row, row + width);
    if (static_cast<std::int64_t>(block.size()) < rows * width && v + 1 < expanded_->row_of_token.size()) continue;
    file.append(std::span<const float>(block));
    block.clear();
  }
}

/// A Python file of the native form, written for Llama's body, for another one's classes.
std::string for_family(std::string_view file, const HfFamily& family) {
  std::string text(file);
  for (const auto& [of_llama, name] :
       {std::pair<std::string_view, std::string_view>{"LlamaForCausalLM", family.architecture},
        {"LlamaConfig", family.config_class}}) {
    for (std::size_t at = text.find(of_llama); at != std::string::npos; at = text.find(of_llama, at + name.size()))
      text.replace(at, of_llama.size(), name);
  }
  return text;
}

/// The ids that a generation_config.json tells, the first where it is a list.
HfSpecialTokens tokens_of(const std::string& generation_config) {
  const auto json = nlohmann::json::parse(generation_config);
  const auto id_of = [&](const char* key) -> std::optional<std::int32_t> {
    if (!json.contains(key)) return std::nullopt;
    const nlohmann::json& value = json[key].is_array() && !json[key].empty() ? json[key][0] : json[key];
    return value.is_number_integer() ? std::optional(value.get<std::int32_t>()) : std::nullopt;
  };
  return {.bos = id_of("bos_token_id"), .eos = id_of("eos_token_id")};
}

}  // namespace

void write_hf(const ModelSource& source, const std::filesystem::path& out, const HfWriteOptions& options) {
  if (adaptive_of(source.head()) != nullptr && options.expand) {
    throw Error(fmt::format(
        "{}: --expand: no matrix equals an adaptive head (head.kind = \"adaptive\"), whose probabilities are of "
        "several softmaxes; leave --expand out for the native form",
        source.path().string()));
  }
  if (low_rank_of(source.head()) != nullptr) {
    if (options.expand) return write_hf(MultipliedHead(source), out, options);
    if (source.model().tie_embeddings) {
      throw Error(fmt::format(
          "{}: --to hf: an embedding of low rank (model.tie_embeddings = true with head.kind = \"low_rank\") has no "
          "form of its own there; --head dense, or --expand for stock Llama, multiplies it out",
          source.path().string()));
    }
  }
  const HfFolder folder(source, options);
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) throw Error(fmt::format("{}: cannot be made: {}", out.string(), error.message()));
  HfSpecialTokens tokens = write_hf_tokenizer(source, out);
  if (const std::string told = source.generation_config(); !told.empty()) {
    write_file_atomically((out / "generation_config.json").string(), told);
    tokens = tokens_of(told);
  }
  if (folder.config().native) {
    const HfFamily& family = hf_family(folder.config().family);
    write_file_atomically((out / "configuration_vqlm.py").string(), for_family(configuration_vqlm_py, family));
    write_file_atomically((out / "modeling_vqlm.py").string(), for_family(modeling_vqlm_py, family));
  }
  write_safetensors(out, folder.tensors(), options.shard_bytes,
                    [&](const SafetensorsSpec& tensor, SafetensorsWriter& file) { folder.append(tensor, file); });
  write_file_atomically((out / "config.json").string(), hf_config_json(folder.config(), options.dtype, tokens));
}

}  // namespace vqlm
