// Unicode's normalization form C (UAX #15), as Hugging Face's `tokenizers` makes it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

/// const calls may come from several threads at once.
class Nfc {
 public:
  Nfc();

  /// Returns the normalized text: `text` itself where it is normalized already, else a view of `storage`. `text` must be
  /// valid UTF-8.
  std::string_view normalized(std::string_view text, std::string& storage) const;

 private:
  bool is_active(std::uint32_t code) const { return code >= 0x300 && (active_[code >> 6] >> (code & 63) & 1) != 0; }
  std::size_t find_active(std::string_view text, std::size_t from) const;
  static std::size_t partner_of(std::string_view text, std::size_t done, std::size_t active);

  // One bit for each code point that may change in, or change, its surroundings: it has a combining class or a
  // decomposition, or is the second part of a composition. All others are walls between which parts of a text
  // normalize alone, but for the one in front of an active one. Below U+0300 nothing is active: such text is normalized.
  std::vector<std::uint64_t> active_;
};

}  // namespace vqlm
