// Which token of a tokenizer.json ends a text: the file itself does not say.
#pragma once

#include <filesystem>
#include <optional>

#include "data/tokenizer/tokenizer_model.h"

namespace vqlm {

/// What the files of the folder say: eos_token_id of generation_config.json where it is one (of a chat model they are
/// several), else eos_token of tokenizer_config.json, else eos_token_id of config.json, else usual_end_of_text(). Throws Error
/// for a file that is no JSON, and for a token or an id that the tokenizer does not have.
std::optional<std::int32_t> end_of_text_id(const TokenizerModel& model, const std::filesystem::path& folder);

/// The one of <|endoftext|>, <|end_of_text|> and </s> that is a special token of the tokenizer; nothing where it has none, or several.
std::optional<std::int32_t> usual_end_of_text(const TokenizerModel& model);

}  // namespace vqlm
