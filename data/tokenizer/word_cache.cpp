#include "data/tokenizer/word_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace vqlm {

namespace {

constexpr std::string_view space_symbol = "\xE2\x96\x81";  // U+2581, SentencePiece's way to write a space

bool is_continuation(unsigned char byte) {
  return (byte & 0xC0u) == 0x80u;
}

/// The table of bytes that stand side by side in some piece, with spaces as spaces.
std::vector<std::uint8_t> neighbours_in_pieces(const Tokenizer& tokenizer) {
  std::vector<std::uint8_t> joined(std::size_t{256} * 256, 0);
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_text_piece(id)) continue;
    std::string piece = tokenizer.piece(id);
    for (std::size_t at = piece.find(space_symbol); at != std::string::npos; at = piece.find(space_symbol)) {
      piece.replace(at, space_symbol.size(), 1, ' ');
    }
    for (std::size_t i = 1; i < piece.size(); ++i) {
      joined[static_cast<unsigned char>(piece[i - 1]) * 256u + static_cast<unsigned char>(piece[i])] = 1;
    }
  }
  // A character is never cut.
  for (unsigned left = 0; left < 256; ++left) {
    for (unsigned right = 0; right < 256; ++right) {
      if (is_continuation(static_cast<unsigned char>(right))) joined[left * 256u + right] = 1;
    }
  }
  return joined;
}

}  // namespace

WordCache::WordCache(const Tokenizer& tokenizer, std::size_t slots)
    : tokenizer_(tokenizer),
      // Without byte fallback SentencePiece joins neighbouring unknown characters to one id, across any cut.
      active_(tokenizer.kind() == TokenizerKind::byte_level_bpe ||
              (tokenizer.traits().bpe && tokenizer.traits().byte_fallback && tokenizer.traits().plain_normalization)) {
  VQLM_ASSERT(slots >= ways && std::has_single_bit(slots));
  if (!active_) return;
  if (tokenizer.kind() == TokenizerKind::sentencepiece) joined_ = neighbours_in_pieces(tokenizer);
  slots_.resize(slots);
}

void WordCache::encode(std::string_view text, std::vector<std::uint32_t>& ids) {
  if (tokenizer_.kind() == TokenizerKind::byte_level_bpe) {
    ids_ = &ids;
    return tokenizer_.cut(text, *this);
  }
  if (!active_ || text.find(space_symbol) != std::string_view::npos) return tokenizer_.encode(text, ids);
  if (text.empty()) return;
  if (tokenizer_.traits().dummy_prefix) {
    prefixed_.assign(1, ' ').append(text);
    text = prefixed_;
  }
  std::size_t begin = 0;
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (joined(static_cast<unsigned char>(text[i - 1]), static_cast<unsigned char>(text[i]))) continue;
    encode_word(text.substr(begin, i - begin), ids);
    begin = i;
  }
  encode_word(text.substr(begin), ids);
}

void WordCache::encode_word(std::string_view word, std::vector<std::uint32_t>& ids) {
  ++lookups_;
  if (word.size() > max_word_bytes) {
    ++misses_;
    return tokenizer_.encode_word(word, ids);
  }
  const std::size_t sets = slots_.size() / ways;
  Slot* set = slots_.data() + (XXH3_64bits(word.data(), word.size()) & (sets - 1)) * ways;
  for (std::size_t way = 0; way < ways; ++way) {
    Slot& slot = set[way];
    if (slot.length != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) continue;
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
    if (way > 0) std::swap(slot, set[way - 1]);  // words in use move away from the way that is given up
    return;
  }
  ++misses_;
  const std::size_t first = ids.size();
  tokenizer_.encode_word(word, ids);
  const std::size_t count = ids.size() - first;
  if (count > max_word_ids) return;
  std::size_t way = 0;
  while (way + 1 < ways && set[way].length > 0) ++way;  // the first empty one or the last
  Slot& slot = set[way];
  std::copy(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), slot.ids);
  std::memcpy(slot.word, word.data(), word.size());
  slot.length = static_cast<std::uint8_t>(word.size());
  slot.count = static_cast<std::uint8_t>(count);
}

}  // namespace vqlm
