// What config.json says of a body.
#include "core/error.h"
#include "train/models/hf_body.h"

namespace vqlm {
namespace {

using Windows = HfFamily::Windows;

nlohmann::ordered_json rope_json(const RopeScaling& rope) {
  switch (rope.kind) {
    case RopeScaling::Kind::none:
      return nullptr;
    case RopeScaling::Kind::linear:
      return {{"rope_type", "linear"}, {"type", "linear"}, {"factor", hf_number(rope.factor)}};
    case RopeScaling::Kind::llama3:
      return {{"rope_type", "llama3"},
              {"factor", hf_number(rope.factor)},
              {"low_freq_factor", hf_number(rope.low_freq_factor)},
              {"high_freq_factor", hf_number(rope.high_freq_factor)},
              {"original_max_position_embeddings", rope.original_positions}};
  }
  return nullptr;
}

void append_windows(nlohmann::ordered_json& json, const ModelConfig& model, const HfFamily& family) {
  if (family.windows == Windows::none) return;
  json["sliding_window"] = nullptr;
  if (model.window > 0) json["sliding_window"] = model.window;
  if (family.windows == Windows::all) return;
  if (!family.gemma) json["use_sliding_window"] = model.window > 0;
  json["layer_types"] = nlohmann::ordered_json::array();
  for (int layer = 0; layer < model.n_layers; ++layer)
    json["layer_types"].push_back(model.window_of(layer) > 0 ? "sliding_attention" : "full_attention");
}

void append_gemma(nlohmann::ordered_json& json, const ModelConfig& model) {
  json.erase("hidden_act");
  json["hidden_activation"] = "gelu_pytorch_tanh";
  json["query_pre_attn_scalar"] =
      model.attention_scale > 0 ? static_cast<std::int64_t>(model.attention_scale) : model.head_dim();
  json["rope_local_base_freq"] = hf_number(model.window_rope_theta > 0 ? model.window_rope_theta : model.rope_theta);
  json["final_logit_softcapping"] = nullptr;
  json["attn_logit_softcapping"] = nullptr;
}

}  // namespace

void append_hf_body(nlohmann::ordered_json& json, const ModelConfig& model, const HfFamily& family,
                    std::int64_t max_positions) {
  json["vocab_size"] = model.vocab_size;
  json["hidden_size"] = model.d_model;
  json["intermediate_size"] = model.d_ff;
  json["num_hidden_layers"] = model.n_layers;
  json["num_attention_heads"] = model.n_heads;
  json["num_key_value_heads"] = model.n_kv_heads;
  json["head_dim"] = model.head_dim();
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = max_positions;
  json["rms_norm_eps"] = hf_number(model.norm_eps);
  json["rope_theta"] = hf_number(model.rope_theta);
  json["rope_scaling"] = rope_json(model.rope_scaling);
  json["attention_bias"] = false;
  json["mlp_bias"] = false;
  json["tie_word_embeddings"] = model.tie_embeddings;
  if (family.model_type == "llama") return;
  json["pad_token_id"] = nullptr;  // the classes' own lie beyond small vocabularies
  append_windows(json, model, family);
  if (family.nope) {
    json["no_rope_layers"] = nlohmann::ordered_json::array();
    for (int layer = 0; layer < model.n_layers; ++layer) json["no_rope_layers"].push_back(model.rotates(layer) ? 1 : 0);
  }
  if (family.gemma) append_gemma(json, model);
}

nlohmann::json hf_number(float value) {
  return nlohmann::json::parse(fmt::format("{}", value));
}

}  // namespace vqlm
