// Trains a SentencePiece model for language modelling on a sample of documents.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vqlm {

struct TokenizerTraining {
  std::int64_t vocab_size = 0;
  int threads = 1;
};

/// The bytes of a BPE model of exactly vocab_size pieces, the same for the same documents. Options: byte
/// fallback and no normalisation, so that text survives encoding and decoding byte for byte (but for U+2581,
/// which SentencePiece uses for the space); no space put in front; pieces stay inside words, digits stand
/// alone, runs of spaces may be pieces and the line end is one. Ids: 0 unknown, 1 beginning of text (not
/// used), 2 end of text. Throws Error where the sample has too little text for the vocabulary, or the
/// vocabulary has no room for its characters.
std::string train_tokenizer(const std::vector<std::string>& documents, const TokenizerTraining& options);

}  // namespace vqlm
