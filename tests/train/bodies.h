// Bodies other than Llama's, for tests that run over several.
#pragma once

#include <string>

#include "core/error.h"
#include "core/model_config.h"

namespace vqlm::testing {

/// "llama", or the choices of "qwen" (2 and 3), "olmo", "gemma" or "smollm" on the model's sizes, of at least two layers.
inline ModelConfig with_body(ModelConfig model, const std::string& name) {
  if (name == "qwen") {
    model.head_width = model.head_dim() + 4;
    model.attention_bias = true;
    model.qk_norm = QkNorm::head;
  } else if (name == "olmo") {
    model.qk_norm = QkNorm::width;
    model.norm_placement = NormPlacement::post;
  } else if (name == "gemma") {
    model.qk_norm = QkNorm::head;
    model.norm_placement = NormPlacement::both;
    model.activation = Activation::geglu;
    model.embedding_scale = 3;
    model.attention_scale = 5;
    model.window = 6;
    model.window_pattern = 2;
    model.window_rope_theta = 100;
  } else if (name == "smollm") {
    model.nope_every = 2;
    model.window = 3;
    model.zero_init_outputs = true;
  } else if (name == "documents") {
    model.document_end = 2;  // of tests/train/tiny_run.h's shards
  } else if (name == "tables") {
    model.ngram_tables = {{.order = 2, .rows = 31}, {.order = 3, .rows = 17}};
    model.document_end = 2;
  } else {
    VQLM_ASSERT(name == "llama");
  }
  return model;
}

}  // namespace vqlm::testing
