#include "data/tokenizer/nfc.h"

#include <spdlog/fmt/fmt.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/error.h"
#include "data/tokenizer/unicode_tables.h"
#include "data/tokenizer/utf8.h"

namespace vqlm {

namespace {

constexpr std::uint32_t code_points = 0x110000;
constexpr std::size_t longest_decomposition = 32;  // 4 in Unicode 17

/// The text decomposed, marks in canonical order: utf8proc orders them itself by exchanging neighbours, which takes a time
/// that grows with the square of a run of marks.
std::string decomposed(std::string_view text) {
  const auto order = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
  std::vector<utf8proc_int32_t> codes;
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t parts[longest_decomposition];
    int boundary = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(next_code_point(text, at)), parts,
                                                       longest_decomposition, UTF8PROC_DECOMPOSE, &boundary);
    codes.insert(codes.end(), parts, parts + std::max<utf8proc_ssize_t>(n, 0));
  }
  for (auto begin = codes.begin(); begin != codes.end();) {
    const auto end = std::find_if(begin, codes.end(), [&](utf8proc_int32_t code) { return order(code) == 0; });
    std::ranges::stable_sort(begin, end, {}, order);
    begin = std::find_if(end, codes.end(), [&](utf8proc_int32_t code) { return order(code) != 0; });
  }
  std::string ordered;
  for (const utf8proc_int32_t code : codes) append_utf8(ordered, static_cast<std::uint32_t>(code));
  return ordered;
}

std::string composed(std::string_view text) {
  constexpr std::size_t many_bytes = 256;
  std::string ordered;
  if (text.size() > many_bytes) text = ordered = decomposed(text);
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &made, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (length < 0) throw Error(fmt::format("a text cannot be normalized: {}", utf8proc_errmsg(length)));
  return std::string(reinterpret_cast<const char*>(made), static_cast<std::size_t>(length));
}

}  // namespace

Nfc::Nfc() : active_(code_points / 64) {
  const auto mark = [&](std::uint32_t code) { active_[code >> 6] |= std::uint64_t{1} << (code & 63); };
  for (std::uint32_t code = 0xA0; code < code_points; ++code) {
    const auto point = static_cast<utf8proc_int32_t>(code);
    if (utf8proc_get_property(point)->combining_class != 0) mark(code);
    utf8proc_int32_t parts[longest_decomposition];
    int boundary = 0;
    const utf8proc_ssize_t n =
        utf8proc_decompose_char(point, parts, longest_decomposition, UTF8PROC_DECOMPOSE, &boundary);
    if (n < 1 || (n == 1 && parts[0] == point)) continue;  // surrogates have none
    mark(code);
    for (utf8proc_ssize_t i = 1; i < n; ++i) mark(static_cast<std::uint32_t>(parts[i]));
  }
  for (const CodePoints& inert : inert_in_nfc()) {
    for (std::uint32_t code = inert.first; code <= inert.last; ++code) {
      active_[code >> 6] &= ~(std::uint64_t{1} << (code & 63));
    }
  }
}

/// Where the first active character is, or the text's size.
std::size_t Nfc::find_active(std::string_view text, std::size_t from) const {
  while (from < text.size()) {
    const std::size_t here = from;
    // Below U+0300 (bytes 0xCC 0x80) nothing is active.
    if (static_cast<unsigned char>(text[from]) < 0xCC) {
      from += utf8_length(text[from]);
    } else if (is_active(next_code_point(text, from))) {
      return here;
    }
  }
  return text.size();
}

/// Where the character in front of `active` begins, to which an active one may be joined, but not before `done`. Its own
/// left neighbour need not be looked at: it is no active character itself.
std::size_t Nfc::partner_of(std::string_view text, std::size_t done, std::size_t active) {
  if (active == done) return active;
  std::size_t begin = active - 1;
  while ((static_cast<unsigned char>(text[begin]) & 0xC0u) == 0x80u) --begin;
  std::size_t at = begin;
  const std::uint32_t code = next_code_point(text, at);
  for (const CodePoints& inert : inert_in_nfc()) {
    if (code >= inert.first && code <= inert.last) return active;
  }
  return begin;
}

std::string_view Nfc::normalized(std::string_view text, std::string& storage) const {
  std::size_t active = find_active(text, 0);
  if (active == text.size()) return text;
  storage.clear();
  std::size_t done = 0;
  while (active < text.size()) {
    const std::size_t begin = partner_of(text, done, active);
    storage.append(text.substr(done, begin - done));
    std::size_t at = active;
    while (at < text.size()) {
      std::size_t behind = at;
      if (!is_active(next_code_point(text, behind))) break;
      at = behind;
    }
    storage += composed(text.substr(begin, at - begin));
    done = at;
    active = find_active(text, at);
  }
  storage.append(text.substr(done));
  return storage;
}

}  // namespace vqlm
