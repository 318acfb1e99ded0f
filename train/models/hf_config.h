// config.json of a Hugging Face folder: sizes and choices as ModelConfig and HeadConfig, and back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/model_config.h"

namespace vqlm {

/// What a folder's config.json says.
struct HfConfig {
  ModelConfig model;  // all sizes filled in
  HeadConfig head;
  std::string architecture;        // "LlamaForCausalLM"
  std::string family = "llama";    // whose body it is (hf_body.h)
  bool native = false;             // model_type "vqlm": the head is ours, its tensors are named lm_head.*
  std::string map_provenance;      // of a VQ head's map
  std::int64_t max_positions = 0;  // max_position_embeddings
};

/// Parses config.json; `file` is its name for messages. model_type must be a family of hf_body.h or vqlm, our own. Throws Error naming key and value of what is missing, wrong or not supported, and why.
HfConfig parse_hf_config(const std::string& text, const std::string& file);

/// Which ids mean what; absent where nothing tells.
struct HfSpecialTokens {
  std::optional<std::int32_t> bos, eos;
};

/// The text of config.json: the family's class, or with config.native VqlmForCausalLM, derived from it. dtype: "float32", "bfloat16" or
/// "float16".
std::string hf_config_json(const HfConfig& config, const std::string& dtype, const HfSpecialTokens& tokens);

}  // namespace vqlm
