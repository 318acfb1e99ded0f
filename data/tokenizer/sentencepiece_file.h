// A SentencePiece model file taken apart and put together again.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

struct SentencePieceFile {
  enum class Type : std::uint8_t {
    normal = 1,
    unknown,
    control,
    user_defined,
    unused,
    byte
  };  // the file's own numbers
  struct Piece {
    std::string text;  // with U+2581 for a space
    float score = 0;
    Type type = Type::normal;
  };

  std::vector<Piece> pieces;  // by id
  bool bpe = false;           // else unigram
  bool byte_fallback = false;
  std::string charsmap;  // of the normalization, compiled; "": text as it is
  bool dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool whitespace_as_suffix = false;
  std::string end_piece = "</s>";  // which must be a control piece
};

/// Throws Error (beginning with `name`) for bytes that are no SentencePiece model of kind BPE or unigram.
SentencePieceFile read_sentencepiece(std::string_view model, const std::string& name);

/// The bytes of a model file that the library reads, without what only training needs.
std::string write_sentencepiece(const SentencePieceFile& file);

}  // namespace vqlm
