#include "train/models/hf_config.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/model/head/code_map.h"
#include "train/config/enum_words.h"

namespace vqlm {

namespace {

using Json = nlohmann::json;

/// A damaged number must not become a list of a billion tensors' names.
constexpr int max_layers = 10000;

/// One object of config.json; null counts as absent, as it does for Python's readers.
class Section {
 public:
  Section(const Json& json, std::string file, std::string prefix)
      : json_(json), file_(std::move(file)), prefix_(std::move(prefix)) {}

  bool has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }

  [[noreturn]] void refuse(const char* key, const std::string& reason) const {
    throw Error(fmt::format("{}: {}{} = {} {}", file_, prefix_, key,
                            json_[key].dump(-1, ' ', false, Json::error_handler_t::replace), reason));
  }

  std::int64_t integer(const char* key, std::optional<std::int64_t> absent = std::nullopt,
                       std::uint64_t least = 1) const {
    if (!has(key)) return fall_back(key, absent);
    const Json& value = json_[key];
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < least ||
        value.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max())
      refuse(key, fmt::format("is no size: it must be a whole number of at least {}", least));
    return value.get<std::int64_t>();
  }

  float number(const char* key, std::optional<float> absent = std::nullopt) const {
    if (!has(key)) return fall_back(key, absent);
    const Json& value = json_[key];
    const double number = value.is_number() ? value.get<double>() : 0;
    if (!(number > 0) || !std::isfinite(static_cast<float>(number))) refuse(key, "must be a positive number");
    return static_cast<float>(number);
  }

  bool flag(const char* key, bool absent) const {
    if (!has(key)) return absent;
    if (!json_[key].is_boolean()) refuse(key, "must be true or false");
    return json_[key].get<bool>();
  }

  std::string text(const char* key, std::optional<std::string> absent = std::nullopt) const {
    if (!has(key)) return fall_back(key, absent);
    if (!json_[key].is_string()) refuse(key, "must be a string");
    return json_[key].get<std::string>();
  }

  Section object(const char* key) const {
    if (!json_[key].is_object()) refuse(key, "must be an object");
    return {json_[key], file_, prefix_ + key + "."};
  }

 private:
  template <class T>
  T fall_back(const char* key, const std::optional<T>& absent) const {
    if (!absent) throw Error(fmt::format("{}: has no {}{}, which the model needs", file_, prefix_, key));
    return *absent;
  }

  const Json& json_;
  std::string file_;
  std::string prefix_;
};

/// Llama's options that would change the computation and that this program does not have.
void check_supported(const Section& config, const std::string& model_type) {
  if (model_type != "llama" && model_type != "mistral" && model_type != "vqlm")
    config.refuse("model_type", "is not supported: only llama, mistral and vqlm (this program's own) are");
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (config.flag(key, false)) config.refuse(key, "is not supported: the projections here have no biases");
  }
  if (config.text("hidden_act", "silu") != "silu") config.refuse("hidden_act", "is not supported: only silu is");
  if (config.integer("pretraining_tp", 1) != 1)
    config.refuse("pretraining_tp", "is not supported: it changes the order of sums; set it to 1");
  if (config.has("sliding_window") && model_type != "llama")
    config.refuse("sliding_window", "is not supported: attention here goes over the whole sample");
  if (config.has("partial_rotary_factor") && config.number("partial_rotary_factor") != 1)
    config.refuse("partial_rotary_factor", "is not supported: rotary positions turn whole heads");
  if (config.has("quantization_config"))
    config.refuse("quantization_config", "is not supported: only float32, bfloat16 and float16 values are");
}

RopeScaling parse_rope(const Section& rope) {
  const char* key = rope.has("rope_type") ? "rope_type" : "type";  // "type" before transformers 4.43
  const std::string type = rope.text(key, "default");
  RopeScaling scaling;
  if (type == "default") return scaling;
  if (type != "linear" && type != "llama3") rope.refuse(key, "is not supported: only default, linear and llama3 are");
  scaling.factor = rope.number("factor");
  if (scaling.factor < 1) rope.refuse("factor", "must be at least 1");
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
    return scaling;
  }
  scaling.kind = RopeScaling::Kind::llama3;
  scaling.low_freq_factor = rope.number("low_freq_factor");
  scaling.high_freq_factor = rope.number("high_freq_factor");
  if (scaling.low_freq_factor >= scaling.high_freq_factor)
    rope.refuse("low_freq_factor", "must be below high_freq_factor");
  scaling.original_positions = rope.integer("original_max_position_embeddings");
  return scaling;
}

void parse_positions(const Section& config, ModelConfig& model) {
  // transformers 5 moved rope_theta and rope_scaling into rope_parameters.
  if (config.has("rope_parameters")) {
    const Section rope = config.object("rope_parameters");
    model.rope_theta = rope.number("rope_theta", config.number("rope_theta", 10000.0f));
    model.rope_scaling = parse_rope(rope);
    return;
  }
  model.rope_theta = config.number("rope_theta", 10000.0f);
  if (config.has("rope_scaling")) model.rope_scaling = parse_rope(config.object("rope_scaling"));
}

ModelConfig parse_model(const Section& config, const std::string& model_type) {
  ModelConfig model;
  model.vocab_size = config.integer("vocab_size");
  model.d_model = config.integer("hidden_size");
  model.d_ff = config.integer("intermediate_size");
  model.n_layers = static_cast<int>(config.integer("num_hidden_layers"));
  if (model.n_layers > max_layers) config.refuse("num_hidden_layers", fmt::format("is above {}", max_layers));
  model.n_heads = static_cast<int>(config.integer("num_attention_heads"));
  // Absent it means all heads in Llama, and 8 in transformers' Mistral.
  model.n_kv_heads =
      static_cast<int>(config.integer("num_key_value_heads", model_type == "mistral" ? 8 : model.n_heads));
  if (model.d_model % model.n_heads != 0 || model.head_dim() % 2 != 0) {
    config.refuse("num_attention_heads",
                  fmt::format("does not cut hidden_size = {} into heads of even width", model.d_model));
  }
  if (config.has("head_dim") && config.integer("head_dim") != model.head_dim()) {
    config.refuse("head_dim",
                  fmt::format("is not supported: it must be hidden_size / num_attention_heads = {}", model.head_dim()));
  }
  if (model.n_heads % model.n_kv_heads != 0) {
    config.refuse("num_attention_heads", fmt::format("does not divide by num_key_value_heads = {}", model.n_kv_heads));
  }
  model.norm_eps = config.number("rms_norm_eps", 1e-6f);
  model.tie_embeddings = config.flag("tie_word_embeddings", false);
  parse_positions(config, model);
  return model;
}

/// The word of `name` as an enum's value; `otherwise` where the folder does not say.
template <class Enum>
Enum choice_of(const Section& config, const char* name, Enum otherwise) {
  const auto value = value_of<Enum>(config.text(name, std::string(word_of(otherwise))));
  if (!value) config.refuse(name, fmt::format("is not supported: only {} are", fmt::join(words<Enum>, ", ")));
  return *value;
}

decltype(VqHeadConfig::members) parse_members(const Section& config, const ModelConfig& model) {
  const auto vectors = choice_of(config, "vq_members", MemberVectors::codes);
  if (vectors == MemberVectors::embedding) {
    // Earlier versions could use some of the columns, times a factor.
    if (config.has("vq_member_rank") && config.integer("vq_member_rank") != model.d_model)
      config.refuse("vq_member_rank", fmt::format("is not supported: only hidden_size = {} is", model.d_model));
    if (config.number("vq_member_scale", 1) != 1) config.refuse("vq_member_scale", "is not supported: only 1 is");
    return EmbeddingMembersConfig{.mean = config.flag("vq_member_mean", false)};
  }
  // 0 is the published method and has no codes; transformers writes it where we leave it out.
  const std::int64_t groups = config.integer("vq_groups", 0, 0);
  if (vectors == MemberVectors::none || groups == 0) return NoMembersConfig{};
  if (model.d_model % groups != 0)
    config.refuse("vq_groups", fmt::format("does not divide hidden_size = {}", model.d_model));
  return CodeMembersConfig{.groups = static_cast<int>(groups), .codes = static_cast<int>(config.integer("vq_codes"))};
}

decltype(VqHeadConfig::learning) parse_learning(const Section& config) {
  switch (choice_of(config, "vq_learning", CodebookLearning::gradient)) {
    case CodebookLearning::gradient:
      break;
    case CodebookLearning::commitment: {
      const CommitmentLearningConfig usual;
      return CommitmentLearningConfig{config.number("vq_commitment", usual.commitment)};
    }
    case CodebookLearning::ema: {
      const EmaLearningConfig usual;
      return EmaLearningConfig{config.number("vq_commitment", usual.commitment),
                               config.number("vq_ema_decay", usual.ema_decay)};
    }
  }
  return GradientLearningConfig{};
}

HeadConfig parse_native_head(const Section& config, const ModelConfig& model) {
  const bool bias = config.flag("head_bias", false);
  const auto kind = value_of<HeadKind>(config.text("head_kind"));
  if (!kind) config.refuse("head_kind", "is not supported: only vq and dense are");
  if (kind == HeadKind::dense) return DenseHeadConfig{.bias = bias};
  if (model.tie_embeddings) config.refuse("tie_word_embeddings", "is not possible: a VQ head has no matrix to tie");
  VqHeadConfig head{.bias = bias,
                    .clusters = config.integer("vq_clusters"),
                    .members = parse_members(config, model),
                    .input_codes = false,  // the form has none: FoldedInputCodes
                    .learning = parse_learning(config)};
  try {
    check_code_map_sizes(model.vocab_size, head.clusters, head.groups(), head.codes());
  } catch (const Error& error) {
    config.refuse("vq_clusters", fmt::format("is not possible: {}", error.what()));
  }
  head.map = config.text("vq_map", head.map);
  return head;
}

/// The shortest decimal that gives the float again: 1e-05, not 9.999999747378752e-06.
Json shortest(float value) {
  return Json::parse(fmt::format("{}", value));
}

nlohmann::ordered_json rope_json(const RopeScaling& rope) {
  switch (rope.kind) {
    case RopeScaling::Kind::none:
      return nullptr;
    case RopeScaling::Kind::linear:
      return {{"rope_type", "linear"}, {"type", "linear"}, {"factor", shortest(rope.factor)}};
    case RopeScaling::Kind::llama3:
      return {{"rope_type", "llama3"},
              {"factor", shortest(rope.factor)},
              {"low_freq_factor", shortest(rope.low_freq_factor)},
              {"high_freq_factor", shortest(rope.high_freq_factor)},
              {"original_max_position_embeddings", rope.original_positions}};
  }
  return nullptr;
}

void append_native(nlohmann::ordered_json& json, const HfConfig& config) {
  json["auto_map"] = {{"AutoConfig", "configuration_vqlm.VqlmConfig"},
                      {"AutoModelForCausalLM", "modeling_vqlm.VqlmForCausalLM"}};
  json["head_kind"] = word_of(kind_of(config.head));
  json["head_bias"] = has_bias(config.head);
  const VqHeadConfig* const head = vq_of(config.head);
  if (head == nullptr) return;
  VQLM_ASSERT(!head->input_codes);  // the form has none: FoldedInputCodes
  json["vq_clusters"] = head->clusters;
  if (head->by_embedding()) {
    json["vq_members"] = word_of(MemberVectors::embedding);
    json["vq_member_mean"] = head->member_mean();
  }
  if (head->groups() > 0) {
    json["vq_groups"] = head->groups();
    json["vq_codes"] = head->codes();
  }
  json["vq_map"] = head->map;
  json["vq_map_provenance"] = config.map_provenance;
  json["vq_learning"] = word_of(static_cast<CodebookLearning>(head->learning.index()));
  if (!std::holds_alternative<GradientLearningConfig>(head->learning))
    json["vq_commitment"] = shortest(head->commitment());
  if (const auto* ema = std::get_if<EmaLearningConfig>(&head->learning))
    json["vq_ema_decay"] = shortest(ema->ema_decay);
}

}  // namespace

HfConfig parse_hf_config(const std::string& text, const std::string& file) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw Error(fmt::format("{}: is no JSON object; the file is damaged", file));
  const Section section(json, file, "");
  const std::string model_type = section.text("model_type");
  check_supported(section, model_type);
  HfConfig config;
  config.model = parse_model(section, model_type);
  config.native = model_type == "vqlm";
  config.head = DenseHeadConfig{.bias = false};
  if (config.native) {
    config.head = parse_native_head(section, config.model);
    config.map_provenance = section.text("vq_map_provenance", "");
  }
  config.max_positions = section.integer("max_position_embeddings", 2048);
  const bool named = json.contains("architectures") && json["architectures"].is_array() &&
                     !json["architectures"].empty() && json["architectures"][0].is_string();
  config.architecture = named ? json["architectures"][0].get<std::string>() : model_type;
  return config;
}

std::string hf_config_json(const HfConfig& config, const std::string& dtype, const HfSpecialTokens& tokens) {
  const ModelConfig& model = config.model;
  nlohmann::ordered_json json = {
      {"architectures", {config.native ? "VqlmForCausalLM" : "LlamaForCausalLM"}},
      {"model_type", config.native ? "vqlm" : "llama"},
      {"vocab_size", model.vocab_size},
      {"hidden_size", model.d_model},
      {"intermediate_size", model.d_ff},
      {"num_hidden_layers", model.n_layers},
      {"num_attention_heads", model.n_heads},
      {"num_key_value_heads", model.n_kv_heads},
      {"head_dim", model.head_dim()},
      {"hidden_act", "silu"},
      {"max_position_embeddings", config.max_positions},
      {"rms_norm_eps", shortest(model.norm_eps)},
      {"rope_theta", shortest(model.rope_theta)},
      {"rope_scaling", rope_json(model.rope_scaling)},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"tie_word_embeddings", model.tie_embeddings},
      {"torch_dtype", dtype},
      {"use_cache", true},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr},
  };
  if (tokens.bos) json["bos_token_id"] = *tokens.bos;
  if (tokens.eos) json["eos_token_id"] = *tokens.eos;
  if (config.native) append_native(json, config);
  return json.dump(2) + "\n";
}

}  // namespace vqlm
