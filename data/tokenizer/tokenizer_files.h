// The files of a tokenizer as they lie in a folder: beside shards, in a checkpoint, in a Hugging Face model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

/// Returns those of tokenizer.model, tokenizer.json, tokenizer_config.json, special_tokens_map.json, vocab.json,
/// merges.txt, added_tokens.json, chat_template.jinja and generation_config.json that are in the folder, in this order;
/// empty for a folder that is not there.
std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& folder);

/// Tells whether such a file has this name.
bool is_tokenizer_file(std::string_view name);

/// Returns what tells tokenizers apart: the sha256 (lower-case hex) of tokenizer.model, else of tokenizer.json, else of
/// the bytes of vocab.json and merges.txt in a row; "" where none of them is there. A tokenizer.json whose way to begin texts
/// `vqlm convert` has changed, and nothing else, keeps the hash that it had, which tokenizer_config.json tells
/// (tokenizer_identity_key: {"of": hash now, "is": hash before}). Throws Error for a file that cannot be read.
inline constexpr const char* tokenizer_identity_key = "vqlm_tokenizer_sha256";
std::string tokenizer_identity(const std::filesystem::path& folder);

/// Returns one more than the largest id of the folder's tokenizer: of tokenizer.json (vocabulary and added tokens), else
/// of tokenizer.model, else of vocab.json; and of added_tokens.json. Throws Error for files that are missing or damaged.
std::int64_t tokenizer_vocab_size(const std::filesystem::path& folder);

}  // namespace vqlm
