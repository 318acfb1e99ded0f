// SentencePiece models (the library's), behind TokenizerModel.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_model.h"

namespace vqlm {

/// Loads a model from its bytes. Words are what the text is cut to in word_cache.h: encode_word puts no space in front.
/// Throws Error (beginning with `name`) for what is no SentencePiece model, or has no end-of-text piece.
std::unique_ptr<TokenizerModel> make_sentencepiece_tokenizer(const std::string& model, const TokenizerTraits& traits,
                                                             const std::string& name);

}  // namespace vqlm
