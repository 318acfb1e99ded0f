// Reads Hugging Face's tokenizer.json: what of it is byte-level BPE. Everything else is refused by name.
#pragma once

#include <string>
#include <string_view>

#include "data/tokenizer/byte_level_bpe.h"

namespace vqlm {

/// The words of ByteLevel with use_regex: GPT-2's own pattern.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// The tokenizer that the file describes, with the same ids as Hugging Face's `tokenizers`. Known are the model BPE (without
/// dropout, prefixes and suffixes), the normalizers NFC and none, the pre-tokenizers ByteLevel and Sequences of Split
/// ("Isolated"), Digits and a last ByteLevel, the decoder ByteLevel, added tokens without single_word. truncation and
/// padding are not looked at: texts are encoded whole. Throws Error (beginning with `name`) that names a value that is not
/// known, and the way out.
ByteLevelSpec read_tokenizer_json(std::string_view json, const std::string& name);

}  // namespace vqlm
