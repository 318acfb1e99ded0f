// Encoding of one long document in bounded memory.
//
// SentencePiece needs about 80 bytes for each byte of a text that it encodes at once, 120 of a run of one letter. Texts go
// to it word by word where WordCache is active. Other models get long texts cut at single spaces between ASCII letters or
// digits: BPE joins nothing across such a place where no piece of the vocabulary holds both its sides (the argument of
// word_cache.h), and whether the model's normalisation minds the cut is tried on the text around each place. So the ids
// are those of the whole text. Texts that cannot be cut that way, or hold an endless word, are refused.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/tokenizer/word_cache.h"

namespace vqlm {

/// Belongs to one thread; the tokenizer must outlive it.
class LongTextEncoder {
 public:
  /// A text, or a word, of more bytes is never encoded at once.
  static constexpr std::size_t default_most_at_once = std::size_t{4} << 20;

  explicit LongTextEncoder(const Tokenizer& tokenizer, std::size_t most_at_once = default_most_at_once);

  /// Appends to `ids` what Tokenizer::encode would. False, with nothing appended, where more than most_at_once bytes would
  /// have to be encoded at once.
  bool encode(std::string_view text, std::vector<std::uint32_t>& ids);

  const WordCache& words() const { return words_; }

 private:
  /// The first place from `from` on, below `end`, where the text may be cut: its space. npos where there is none.
  std::size_t find_cut(std::string_view text, std::size_t from, std::size_t end) const;
  /// Where the text goes on behind a cut: a model that puts a space in front of a text puts the one there again.
  std::size_t behind(std::size_t space) const { return tokenizer_.traits().dummy_prefix ? space + 1 : space; }
  /// The ids around a place are the same with and without the cut.
  bool holds(std::string_view text, std::size_t space) const;

  const Tokenizer& tokenizer_;
  std::size_t most_at_once_;
  WordCache words_;
  std::array<bool, 256> ends_word_{};  // ASCII letters and digits that no piece holds in front of a space
};

}  // namespace vqlm
