// UTF-8, one code point at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vqlm {

/// Bytes of the character that begins with this byte; 1 for a byte that begins none.
constexpr std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// Reads the code point at `at` and moves `at` behind it. The text must be valid UTF-8.
constexpr std::uint32_t next_code_point(std::string_view text, std::size_t& at) {
  const std::size_t length = utf8_length(text[at]);
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  std::uint32_t code = length == 1 ? byte(0) : byte(0) & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) code = code << 6 | (byte(i) & 0x3Fu);
  at += length;
  return code;
}

constexpr void append_utf8(std::string& text, std::uint32_t code) {
  const auto tail = [&](unsigned shift) { text += static_cast<char>(0x80u | (code >> shift & 0x3Fu)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0u | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0u | code >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xF0u | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";  // U+FFFD

/// The text with U+FFFD for every longest beginning of a character that does not become one ("maximal subpart", the Unicode
/// Standard, 3.9), as most programs do it.
std::string valid_utf8(std::string bytes);

}  // namespace vqlm
