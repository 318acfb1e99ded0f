// WordCache: the ids of the tokenizer's encoder from a table of words already seen, 20 times as fast.
//
// Byte-level BPE cuts a text into words itself. Of SentencePiece's models, BPE joins two neighbours only where the result is a piece of the vocabulary (Sennrich et al., arXiv
// 1508.07909; a user-defined symbol is taken whole). Where two neighbouring bytes of the text stand side by
// side in no piece, nothing ever spans the place between them: the ids left and right of it do not depend on
// each other. The text is cut at all such places (in a usual vocabulary: before spaces, around line ends and
// digits, between letters and punctuation) and the parts, "words" here, are looked up. The ids are those of
// Tokenizer::encode for every text and every model: where a model does not work by merges or changes the text
// first, and for text that holds U+2581 itself, that is what runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"

namespace vqlm {

/// A cache belongs to one thread; the tokenizer must outlive it.
class WordCache : private WordSink {
 public:
  /// slots: words kept, a power of two; 64 bytes each.
  explicit WordCache(const Tokenizer& tokenizer, std::size_t slots = default_slots);

  static constexpr std::size_t default_slots = std::size_t{1} << 17;

  /// Appends to `ids` what Tokenizer::encode would.
  void encode(std::string_view text, std::vector<std::uint32_t>& ids);

  /// False where the model does not allow it and every text goes to Tokenizer::encode.
  bool active() const { return active_; }
  /// Words asked for and words that were encoded afresh.
  std::uint64_t lookups() const { return lookups_; }
  std::uint64_t misses() const { return misses_; }

 private:
  static constexpr std::size_t max_word_bytes = 26;
  static constexpr std::size_t max_word_ids = 9;
  static constexpr std::size_t ways = 4;

  /// One cache line: a lookup that hits the first way touches nothing else.
  struct alignas(64) Slot {
    std::uint32_t ids[max_word_ids];
    char word[max_word_bytes];
    std::uint8_t length = 0;  // 0: empty
    std::uint8_t count = 0;
  };
  static_assert(sizeof(Slot) == 64);

  void encode_word(std::string_view word, std::vector<std::uint32_t>& ids);
  void word(std::string_view bytes) override { encode_word(bytes, *ids_); }
  void token(std::uint32_t id) override { ids_->push_back(id); }
  bool joined(unsigned char left, unsigned char right) const { return joined_[left * 256u + right] != 0; }

  const Tokenizer& tokenizer_;
  bool active_ = false;
  std::vector<std::uint8_t> joined_;  // (256, 256): 1 where some piece holds these two bytes side by side
  std::vector<Slot> slots_;
  std::uint64_t lookups_ = 0;
  std::uint64_t misses_ = 0;
  std::vector<std::uint32_t>* ids_ = nullptr;  // where word() and token() append
  std::string prefixed_;                       // scratch: the text with the space that the model puts in front
};

}  // namespace vqlm
