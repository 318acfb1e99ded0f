// The tokenizer's part of a Hugging Face folder.
#pragma once

#include <filesystem>

#include "train/checkpoint/model_source.h"
#include "train/models/hf_config.h"

namespace vqlm {

/// Copies the model's tokenizer files into `out`. Beside a lone SentencePiece model it writes tokenizer_config.json and
/// special_tokens_map.json, with which transformers gives the ids that the model itself gives, beside a lone byte-level
/// tokenizer.json a tokenizer_config.json; generation_config.json where there was none. The folder's tokenizer puts before a
/// text what vqlm generate puts before a prompt: of a run of ours with a byte-level tokenizer, tokenizer.json's post-processor
/// is replaced for that. Returns which ids begin and end texts.
HfSpecialTokens write_hf_tokenizer(const ModelSource& source, const std::filesystem::path& out);

}  // namespace vqlm
