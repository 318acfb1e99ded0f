#include "data/tokenizer/utf8.h"

#include <simdjson.h>

namespace vqlm {

namespace {

struct Sequence {
  std::size_t length = 1;  // of a character, or of the longest beginning of one
  bool whole = false;
};

/// Unicode's table 3-7, "Well-Formed UTF-8 Byte Sequences".
Sequence sequence_at(std::string_view bytes, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned { return static_cast<unsigned char>(bytes[at + i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = utf8_length(bytes[at]);
  for (std::size_t i = 1; i < length; ++i) {
    unsigned least = 0x80, most = 0xBF;
    if (i == 1 && lead == 0xE0) least = 0xA0;
    if (i == 1 && lead == 0xED) most = 0x9F;  // surrogates
    if (i == 1 && lead == 0xF0) least = 0x90;
    if (i == 1 && lead == 0xF4) most = 0x8F;
    if (at + i >= bytes.size() || byte(i) < least || byte(i) > most) return {i, false};
  }
  return {length, true};
}

}  // namespace

std::string valid_utf8(std::string bytes) {
  if (simdjson::validate_utf8(bytes.data(), bytes.size())) return bytes;
  std::string text;
  for (std::size_t at = 0; at < bytes.size();) {
    const Sequence sequence = sequence_at(bytes, at);
    text += sequence.whole ? std::string_view(bytes).substr(at, sequence.length) : replacement_character;
    at += sequence.length;
  }
  return text;
}

}  // namespace vqlm
