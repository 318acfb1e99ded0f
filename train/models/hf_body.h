// Bodies that classes of transformers compute: which class a model is, and what config.json says of it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/model_config.h"
#include "train/models/hf_section.h"

namespace vqlm {

/// A class of transformers, and the choices of a body that it fixes.
struct HfFamily {
  std::string_view model_type, architecture, config_class;
  bool bias = false;  // of query, key and value projections
  QkNorm qk_norm = QkNorm::none;
  NormPlacement norm_placement = NormPlacement::pre;
  enum class Windows { none, all, pattern } windows = Windows::none;  // which layers can have one
  bool nope = false;                                                  // layers without rotary positions
  bool gemma = false;  // GELU, scales of embedding and scores, bases of rotation by layer, gains stored less 1
};

/// Throws Error naming `key` where there is no such family.
const HfFamily& hf_family(const std::string& model_type);
/// The family that computes this body; throws Error naming `path` and what no class has.
const HfFamily& hf_family_of(const ModelConfig& model, const std::string& path);

/// The body that a config.json of this family describes; `key` said the family. Throws Error naming key and value of what is
/// missing, wrong or not supported.
ModelConfig parse_hf_body(const HfSection& config, const std::string& family, const char* key);
/// Adds what the family's config.json says of the body.
void append_hf_body(nlohmann::ordered_json& json, const ModelConfig& model, const HfFamily& family,
                    std::int64_t max_positions);

/// What is added to the values of a stored tensor: Gemma's norms compute x (1 + weight).
float hf_offset(std::string_view family, std::string_view tensor);
/// The shortest decimal that gives the float again: 1e-05, not 9.999999747378752e-06.
nlohmann::json hf_number(float value);

}  // namespace vqlm
