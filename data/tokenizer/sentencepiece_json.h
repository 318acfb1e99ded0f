// SentencePiece models as tokenizer.json: the form in which transformers keeps them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "data/tokenizer/sentencepiece_file.h"

namespace vqlm {

/// A tokenizer.json by which Hugging Face's `tokenizers` gives the model's ids. Control and user-defined pieces become added
/// tokens, so that text which spells a control piece is that token there. Throws Error (beginning with `name`) for spaces that
/// end words.
std::string tokenizer_json_of(const SentencePieceFile& file, const std::string& name);

/// The model that a tokenizer.json keeps: unigram, or BPE whose merges follow from its pieces; nothing for byte-level BPE and
/// other kinds, which tokenizer_json.h reads or refuses. Throws Error (beginning with `name`) where it says what no
/// SentencePiece model does.
std::optional<SentencePieceFile> sentencepiece_of_json(std::string_view json, const std::string& name);

}  // namespace vqlm
