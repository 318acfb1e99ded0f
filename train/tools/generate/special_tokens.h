// Which tokens begin and end a text of a model.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "train/checkpoint/model_source.h"

namespace vqlm {

struct SpecialTokens {
  std::optional<std::int32_t> begin;  // stands before a prompt's first token
  std::vector<std::int32_t> end;      // any of them ends a text
};

/// What the model's tokenizer files say. End: eos_token_id of generation_config.json (one, or several), and the
/// tokenizer's end-of-text token. Begin: where there is a tokenizer_config.json, its beginning-of-text token if
/// add_bos_token says so; without one the model is of `vqlm train`, whose texts stand behind each other's end-of-text
/// tokens. Of a tokenizer.json, what its post-processor puts in front, unless add_bos_token tells or a run of ours made the
/// model. `tokenizer`: null where the model has none that can be read. Throws Error for a file that is no JSON.
SpecialTokens special_tokens(const ModelSource& source, const Tokenizer* tokenizer);

}  // namespace vqlm
