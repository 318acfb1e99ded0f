#include "train/tools/generate/text_stream.h"

#include <algorithm>
#include <string_view>

namespace vqlm {
namespace {

constexpr std::string_view space = "\xE2\x96\x81";        // U+2581 in pieces
constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD: SentencePiece's text of bytes that are no character
constexpr std::size_t longest_character = 4;              // bytes in UTF-8
constexpr std::size_t longest_window = 16;

bool shows_more_than_spaces(const Tokenizer& tokenizer, std::int32_t token) {
  if (!tokenizer.is_text_piece(token)) return false;
  std::string_view piece = tokenizer.piece(token);
  while (piece.starts_with(space)) piece.remove_prefix(space.size());
  return !piece.empty();
}

bool inside_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, const std::vector<std::int32_t>& before)
    : tokenizer_(tokenizer), window_(before) {
  std::erase_if(window_, [&](std::int32_t token) { return token >= tokenizer_.vocab_size(); });
  shorten();
  printed_ = tokenizer_.decode(window_);
}

std::string TextStream::push(std::int32_t token) {
  // Embedding tables are often padded: ids beyond the tokenizer's have no text.
  if (token >= tokenizer_.vocab_size()) return {};
  window_.push_back(token);
  return take(false);
}

std::string TextStream::finish() {
  return take(true);
}

std::string TextStream::take(bool last) {
  const std::string text = tokenizer_.decode(window_);
  if (!last && text.ends_with(replacement)) {
    // A character of four byte pieces has three such ends before it is there; more are no beginning of one.
    std::size_t ends = 0;
    for (std::string_view rest = text; rest.ends_with(replacement); rest.remove_suffix(replacement.size())) ++ends;
    if (ends < longest_character) return {};
  }
  auto same = static_cast<std::size_t>(std::mismatch(text.begin(), text.end(), printed_.begin(), printed_.end()).first -
                                       text.begin());
  while (same > 0 && same < text.size() && inside_character(text[same])) --same;
  std::string added = text.substr(same);
  if (window_.size() > longest_window) {
    shorten();
    printed_ = tokenizer_.decode(window_);
  } else {
    printed_ = text;
  }
  return added;
}

void TextStream::shorten() {
  for (std::size_t i = window_.size(); i-- > 0;) {
    if (!shows_more_than_spaces(tokenizer_, window_[i])) continue;
    window_.erase(window_.begin(), window_.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

}  // namespace vqlm
