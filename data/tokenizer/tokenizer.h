// Tokenizer: text to token ids and back, by a SentencePiece model or by byte-level BPE (tokenizer.json).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer_model.h"

namespace vqlm {

enum class TokenizerKind { sentencepiece, byte_level_bpe };

/// The traits of a SentencePiece model that decide whether words may be encoded one by one
/// (data/tokenizer/word_cache.h).
struct TokenizerTraits {
  bool bpe = false;                  // merges by rank, not a unigram lattice
  bool byte_fallback = false;        // unknown characters become their UTF-8 bytes
  bool plain_normalization = false;  // text is taken as it is, but for spaces written as U+2581
  bool dummy_prefix = false;         // a space is put in front of the text
};

/// One loaded tokenizer. const calls may come from several threads at once.
class Tokenizer {
 public:
  static constexpr std::int32_t no_eos = -1;

  /// Opens a file, or a folder's tokenizer.model, else its tokenizer.json: a name that ends with .json is byte-level BPE as
  /// Hugging Face's `tokenizers` does it, or a SentencePiece model in its form (docs/tokenizers.md), any other a SentencePiece
  /// model. Throws Error naming a file
  /// that cannot be read, is damaged or is of another kind; a SentencePiece model without end-of-text piece.
  static Tokenizer open(const std::string& path);
  /// Tells whether open() finds a tokenizer in the folder (and whether it can be read is seen then).
  static bool is_in(const std::string& folder);
  /// Opens a tokenizer from its file's bytes; `name` tells the kind and begins messages. No other file is looked at.
  static Tokenizer from_bytes(std::string bytes, const std::string& name);

  TokenizerKind kind() const { return kind_; }
  /// The name that the file has beside shards and in models: tokenizer.model or tokenizer.json.
  const char* file_name() const;

  /// One more than the largest id.
  std::int64_t vocab_size() const { return model_->vocab_size(); }
  /// The token that ends a text; no_eos where neither a tokenizer.json nor the files beside it tell. They do by
  /// eos_token_id of generation_config.json where it is one, eos_token of tokenizer_config.json, eos_token_id of config.json,
  /// or by just one of <|endoftext|>, <|end_of_text|> and </s> among the added tokens, in this order.
  std::int32_t eos_id() const { return eos_id_; }
  /// The token that the file's post-processor puts in front of a text; encode() does not.
  std::optional<std::int32_t> begin_id() const { return model_->begin_id(); }
  /// Returns the hash of the file's bytes.
  const std::string& sha256() const { return sha256_; }
  /// Returns the file's bytes.
  const std::string& bytes() const { return bytes_; }
  const TokenizerTraits& traits() const { return traits_; }

  /// Appends the ids of `text` (UTF-8) to `ids`, as SentencePiece or `tokenizers` gives them; no id is added in front or
  /// behind. Byte-level BPE throws Error for a text that is not UTF-8.
  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const { model_->encode(text, ids); }
  /// Appends the ids of one of the words that the text was cut to (word_cache.h).
  void encode_word(std::string_view word, std::vector<std::uint32_t>& ids) const { model_->encode_word(word, ids); }
  /// Cuts a text into the words of byte-level BPE. Throws Error for a text that is not UTF-8.
  void cut(std::string_view text, WordSink& sink) const { model_->cut(text, sink); }
  /// The text of ids; ids of control pieces and special tokens (end of text) give nothing. Throws Error for an id outside
  /// the vocabulary.
  std::string decode(std::span<const std::int32_t> ids) const;

  /// The piece of an id as the file writes it: with U+2581 for a space, or of byte-level BPE each byte as a character.
  const std::string& piece(std::int32_t id) const { return model_->piece(id); }
  /// The id of such a piece.
  std::optional<std::int32_t> id_of(std::string_view piece) const { return model_->id_of(piece); }
  /// The piece as people read it, with U+2581 for a space.
  std::string shown(std::int32_t id) const;
  /// True for pieces that text can become by merging (not control, unknown or byte pieces, nor special tokens).
  bool is_text_piece(std::int32_t id) const { return model_->is_text_piece(id); }

 private:
  Tokenizer() = default;

  TokenizerKind kind_{};
  bool of_json_ = false;  // byte-level BPE, or a SentencePiece model that transformers keeps so
  std::unique_ptr<const TokenizerModel> model_;
  std::string bytes_;
  std::string sha256_;
  TokenizerTraits traits_;
  std::int32_t eos_id_ = no_eos;
};

}  // namespace vqlm
