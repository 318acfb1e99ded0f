// SentencePiece models: text to token ids and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

/// The traits of a SentencePiece model that decide whether words may be encoded one by one
/// (data/tokenizer/word_cache.h).
struct TokenizerTraits {
  bool bpe = false;                  // merges by rank, not a unigram lattice
  bool byte_fallback = false;        // unknown characters become their UTF-8 bytes
  bool plain_normalization = false;  // text is taken as it is, but for spaces written as U+2581
  bool dummy_prefix = false;         // a space is put in front of the text
};

/// One loaded model. const calls may come from several threads at once.
class Tokenizer {
 public:
  /// Throws Error naming a file that cannot be read, that is no SentencePiece model, or whose model has no
  /// end-of-text piece.
  static Tokenizer load(const std::string& path);
  /// Loads a model from its bytes; messages call it `name`.
  static Tokenizer from_bytes(std::string model, const std::string& name);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  std::int64_t vocab_size() const;
  std::int32_t eos_id() const;
  /// Returns the hash of the model file's bytes.
  const std::string& sha256() const { return sha256_; }
  /// Returns the model file's bytes.
  const std::string& bytes() const { return bytes_; }
  const TokenizerTraits& traits() const { return traits_; }

  /// Appends the ids of `text` (UTF-8) to `ids`, as SentencePiece gives them; no end-of-text id is added.
  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const;
  /// Does the same without the space that the model puts in front of the text.
  void encode_without_prefix(std::string_view text, std::vector<std::uint32_t>& ids) const;
  /// The text of ids; ids of control pieces (end of text) give nothing. Throws Error for an id outside the
  /// vocabulary.
  std::string decode(std::span<const std::int32_t> ids) const;

  /// The piece of an id, with U+2581 for a space.
  const std::string& piece(std::int32_t id) const;
  /// True for pieces that text can become by merging (not control, unknown or byte pieces).
  bool is_text_piece(std::int32_t id) const;

 private:
  struct Processor;
  Tokenizer();

  std::unique_ptr<Processor> processor_;
  std::string bytes_;
  std::string sha256_;
  TokenizerTraits traits_;
};

}  // namespace vqlm
