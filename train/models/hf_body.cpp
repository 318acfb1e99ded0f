#include "train/models/hf_body.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "train/config/config_body_check.h"
#include "train/config/model_text.h"

namespace vqlm {
namespace {

/// A damaged number must not become a list of a billion tensors' names.
constexpr int max_layers = 10000;

using Windows = HfFamily::Windows;

constexpr HfFamily families[] = {
    {.model_type = "llama", .architecture = "LlamaForCausalLM", .config_class = "LlamaConfig"},
    {.model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .config_class = "MistralConfig",
     .windows = Windows::all},
    {.model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .config_class = "Qwen2Config",
     .bias = true,
     .windows = Windows::pattern},
    {.model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .config_class = "Qwen3Config",
     .qk_norm = QkNorm::head,
     .windows = Windows::pattern},
    {.model_type = "smollm3",
     .architecture = "SmolLM3ForCausalLM",
     .config_class = "SmolLM3Config",
     .windows = Windows::pattern,
     .nope = true},
    {.model_type = "olmo2",
     .architecture = "Olmo2ForCausalLM",
     .config_class = "Olmo2Config",
     .qk_norm = QkNorm::width,
     .norm_placement = NormPlacement::post},
    {.model_type = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .config_class = "Gemma3TextConfig",
     .qk_norm = QkNorm::head,
     .norm_placement = NormPlacement::both,
     .windows = Windows::pattern,
     .gemma = true},
};

float gemma_embedding_scale(const ModelConfig& model) {
  return static_cast<float>(std::sqrt(static_cast<double>(model.d_model)));
}

/// What transformers takes for the family where config.json does not say.
float default_theta(const HfFamily& family) {
  if (family.model_type == "smollm3") return 2000000.0f;
  return family.gemma ? 1000000.0f : 10000.0f;
}
bool default_tied(const HfFamily& family) {
  return family.gemma || family.model_type == "smollm3";
}

bool computes(const HfFamily& f, const ModelConfig& m) {
  if (m.attention_bias != f.bias || m.qk_norm != f.qk_norm || m.norm_placement != f.norm_placement) return false;
  if (m.nope_every != 0 && !f.nope) return false;
  if (m.window > 0 && (f.windows == Windows::none || (f.windows == Windows::all && m.window_pattern != 0)))
    return false;
  if (f.gemma) {
    // The class wants a whole number, and divides d by the heads to no other end than a check.
    return m.activation == Activation::geglu && m.embedding_scale == gemma_embedding_scale(m) &&
           m.attention_scale == std::round(m.attention_scale) && m.d_model % m.n_heads == 0;
  }
  return m.activation == Activation::swiglu && m.embedding_scale == 1 && m.attention_scale == 0 &&
         m.window_rope_theta == 0;
}

/// Options that would change the computation and that this program does not have.
void check_supported(const HfSection& config, const HfFamily& family) {
  if (config.flag("attention_bias", false)) {
    config.refuse(
        "attention_bias",
        "is not supported: it gives the output projection a bias, too; only Qwen2's of query, key and value are");
  }
  if (config.flag("mlp_bias", false)) config.refuse("mlp_bias", "is not supported: the MLP here has no biases");
  const char* const activation = family.gemma && config.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  const std::string usual = family.gemma ? "gelu_pytorch_tanh" : "silu";
  if (config.text(activation, usual) != usual)
    config.refuse(activation, fmt::format("is not supported: only {} is", usual));
  if (config.integer("pretraining_tp", 1) != 1)
    config.refuse("pretraining_tp", "is not supported: it changes the order of sums; set it to 1");
  if (config.has("partial_rotary_factor") && config.number("partial_rotary_factor") != 1)
    config.refuse("partial_rotary_factor", "is not supported: rotary positions turn whole heads");
  if (config.has("quantization_config"))
    config.refuse("quantization_config", "is not supported: only float32, bfloat16 and float16 values are");
  if (config.has("attn_logit_softcapping")) {
    config.refuse("attn_logit_softcapping", "is not supported: attention's scores here are not capped; set it to null");
  }
  if (config.has("final_logit_softcapping") && !family.gemma) {
    config.refuse("final_logit_softcapping", "is not supported: this class does not cap its logits; set it to null");
  }
  if (config.flag("use_bidirectional_attention", false))
    config.refuse("use_bidirectional_attention", "is not supported: attention here is causal");
}

RopeScaling parse_rope(const HfSection& rope) {
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

void parse_positions(const HfSection& config, const HfFamily& family, ModelConfig& model) {
  model.rope_theta = config.number("rope_theta", default_theta(family));
  if (family.gemma && model.window > 0) model.window_rope_theta = config.number("rope_local_base_freq", 10000.0f);
  // transformers 5 moved rope_theta and rope_scaling into rope_parameters, by kind of layer where kinds differ.
  if (!config.has("rope_parameters")) {
    if (config.has("rope_scaling")) model.rope_scaling = parse_rope(config.object("rope_scaling"));
    return;
  }
  HfSection rope = config.object("rope_parameters");
  if (family.gemma && rope.has("sliding_attention")) {
    const HfSection local = rope.object("sliding_attention");
    if (parse_rope(local).kind != RopeScaling::Kind::none)
      local.refuse("rope_type", "is not supported: layers with a window turn by a base alone");
    if (model.window > 0) model.window_rope_theta = local.number("rope_theta", 10000.0f);
  }
  if (family.gemma && rope.has("full_attention")) rope = rope.object("full_attention");
  model.rope_theta = rope.number("rope_theta", model.rope_theta);
  model.rope_scaling = parse_rope(rope);
}

/// n, where the layers that `chosen` says are the last of every n; 0 where none is. Refuses other choices.
int every_nth(const HfSection& config, const char* key, const std::vector<bool>& chosen) {
  const auto first = std::find(chosen.begin(), chosen.end(), true);
  if (first == chosen.end()) return 0;
  const auto n = first - chosen.begin() + 1;
  for (std::size_t layer = 0; layer < chosen.size(); ++layer) {
    if (chosen[layer] != ((static_cast<std::ptrdiff_t>(layer) + 1) % n == 0))
      config.refuse(key, "is not supported: only layers that are the last of every n can differ from the others");
  }
  return static_cast<int>(n);
}

void parse_windows(const HfSection& config, const HfFamily& family, ModelConfig& model) {
  if (family.windows == Windows::none) {
    // Files of Llama have it now and then, and the class passes over it.
    if (config.text("model_type") != "llama" && config.has("sliding_window"))
      config.refuse("sliding_window", "is not supported: this class has no windows");
    return;
  }
  const bool asked = family.gemma || family.windows == Windows::all || config.flag("use_sliding_window", false);
  // null says none; the classes' own default is a window, but for SmolLM 3's.
  const bool says_none = config.contains("sliding_window") ? !config.has("sliding_window") : family.nope;
  if (!asked || says_none) return;
  model.window = config.integer("sliding_window", 4096);
  if (family.windows == Windows::all) return;
  if (!config.has("layer_types")) {
    if (!family.gemma) config.refuse("use_sliding_window", "needs layer_types here, which say where windows are");
    model.window_pattern = static_cast<int>(config.integer("sliding_window_pattern", 6));
  } else {
    std::vector<bool> global;
    for (const nlohmann::json& type : config.list("layer_types")) {
      if (type != "full_attention" && type != "sliding_attention")
        config.refuse("layer_types", "is not supported: only full_attention and sliding_attention are");
      global.push_back(type == "full_attention");
    }
    if (global.size() != static_cast<std::size_t>(model.n_layers))
      config.refuse("layer_types", fmt::format("has another length than num_hidden_layers = {}", model.n_layers));
    model.window_pattern = every_nth(config, "layer_types", global);
  }
  if (model.window_pattern == 1) model.window = model.window_pattern = 0;
}

void parse_nope(const HfSection& config, ModelConfig& model) {
  if (!config.has("no_rope_layers")) {
    model.nope_every = static_cast<int>(config.integer("no_rope_layer_interval", 4));
    return;
  }
  std::vector<bool> without;
  for (const nlohmann::json& rotates : config.list("no_rope_layers")) {
    if (rotates != 0 && rotates != 1) config.refuse("no_rope_layers", "must be a list of 0 and 1");
    without.push_back(rotates == 0);
  }
  if (without.size() < static_cast<std::size_t>(model.n_layers))
    config.refuse("no_rope_layers", fmt::format("is shorter than num_hidden_layers = {}", model.n_layers));
  without.resize(static_cast<std::size_t>(model.n_layers));
  model.nope_every = every_nth(config, "no_rope_layers", without);
}

void parse_heads(const HfSection& config, const HfFamily& family, ModelConfig& model) {
  model.n_heads = static_cast<int>(config.integer("num_attention_heads"));
  // Absent it means all heads, but 8 in transformers' Mistral, 32 in its Qwens, 4 in its SmolLM 3 and Gemma 3.
  const std::int64_t kv_heads = family.model_type == "mistral"                   ? 8
                                : family.bias || family.model_type == "qwen3"    ? 32
                                : family.gemma || family.model_type == "smollm3" ? 4
                                                                                 : model.n_heads;
  model.n_kv_heads = static_cast<int>(config.integer("num_key_value_heads", kv_heads));
  const bool fixed = family.model_type == "qwen3" || family.gemma;
  if (config.has("head_dim") || fixed) {
    const std::int64_t width = config.integer("head_dim", family.gemma ? 256 : 128);
    if (width % 2 != 0) config.refuse("head_dim", "is odd, and rotary positions turn pairs");
    if (width * model.n_heads != model.d_model) model.head_width = static_cast<int>(width);
  }
  if (model.head_width == 0 && (model.d_model % model.n_heads != 0 || model.head_dim() % 2 != 0)) {
    config.refuse("num_attention_heads",
                  fmt::format("does not cut hidden_size = {} into heads of even width", model.d_model));
  }
  if (model.n_heads % model.n_kv_heads != 0)
    config.refuse("num_attention_heads", fmt::format("does not divide by num_key_value_heads = {}", model.n_kv_heads));
}

}  // namespace

const HfFamily& hf_family(const std::string& model_type) {
  const HfFamily* const found = std::ranges::find(families, model_type, &HfFamily::model_type);
  VQLM_ASSERT(found != std::end(families));
  return *found;
}

const HfFamily& hf_family_of(const ModelConfig& model, const std::string& path) {
  for (const HfFamily& family : families) {
    if (!computes(family, model)) continue;
    if (family.gemma && model.window > 0 && model.window_rope_theta == 0 &&
        model.rope_scaling.kind != RopeScaling::Kind::none)
      break;  // its windows turn unscaled
    return family;
  }
  throw Error(
      fmt::format("{}: no class of transformers computes this body (Llama's but for{}); --to npz writes any model",
                  path, body_text(model).substr(1)));
}

ModelConfig parse_hf_body(const HfSection& config, const std::string& family_name, const char* key) {
  const HfFamily* const found = std::ranges::find(families, family_name, &HfFamily::model_type);
  if (found == std::end(families)) {
    std::vector<std::string_view> known;
    for (const HfFamily& family : families) known.push_back(family.model_type);
    config.refuse(key,
                  fmt::format("is not supported: only {} and vqlm (this program's own) are", fmt::join(known, ", ")));
  }
  const HfFamily& family = *found;
  check_supported(config, family);
  ModelConfig model;
  model.attention_bias = family.bias;
  model.qk_norm = family.qk_norm;
  model.norm_placement = family.norm_placement;
  model.vocab_size = config.integer("vocab_size");
  model.d_model = config.integer("hidden_size");
  model.d_ff = config.integer("intermediate_size");
  model.n_layers = static_cast<int>(config.integer("num_hidden_layers"));
  if (model.n_layers > max_layers) config.refuse("num_hidden_layers", fmt::format("is above {}", max_layers));
  parse_heads(config, family, model);
  model.norm_eps = config.number("rms_norm_eps", family.model_type == "olmo2" ? 1e-5f : 1e-6f);
  model.tie_embeddings = config.flag("tie_word_embeddings", default_tied(family));
  parse_windows(config, family, model);
  if (family.nope) parse_nope(config, model);
  if (family.gemma) {
    model.activation = Activation::geglu;
    model.embedding_scale = gemma_embedding_scale(model);
    model.attention_scale = config.number("query_pre_attn_scalar", 256.0f);
  }
  parse_positions(config, family, model);
  normalize_body(model);
  return model;
}

float hf_offset(std::string_view family, std::string_view tensor) {
  return family == "gemma3_text" && tensor.ends_with("norm.weight") ? 1 : 0;
}

}  // namespace vqlm
