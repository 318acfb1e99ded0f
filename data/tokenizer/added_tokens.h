// Tokens that are found in the text before it is cut into words: the "added_tokens" of Hugging Face's tokenizer.json.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = false;     // decoding gives nothing
  bool normalized = false;  // looked for in the normalized text, itself normalized
  bool lstrip = false;      // takes the white space in front of it
  bool rstrip = false;      // and behind it
};

/// Finds tokens in a text, from left to right, the longest where several begin. const calls may come from several threads.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  /// content as it is looked for; none may be empty.
  explicit AddedTokenFinder(const std::vector<AddedToken>& tokens);

  /// Calls text(std::string_view) for what stands between tokens, which is never empty, and token(id) for tokens.
  template <class Text, class Token>
  void cut(std::string_view whole, Text&& text, Token&& token) const {
    Found found;
    std::size_t at = 0;
    for (std::size_t from = 0; find(whole, from, found); from = found.end) {
      const auto [begin, end] = with_spaces(whole, found, at);
      if (begin > at) text(whole.substr(at, begin - at));
      token(tokens_[found.token].id);
      at = end;
    }
    if (at < whole.size()) text(whole.substr(at));
  }

 private:
  struct Found {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::size_t token = 0;
  };
  struct Stripped {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  bool find(std::string_view text, std::size_t from, Found& found) const;
  std::size_t next_beginning(std::string_view text, std::size_t from) const;
  Stripped with_spaces(std::string_view text, const Found& found, std::size_t after) const;

  std::vector<AddedToken> tokens_;                          // by content, the longest of equal beginnings first
  std::array<std::vector<std::uint32_t>, 256> beginnings_;  // by first byte: places in tokens_
  std::string first_bytes_;
};

}  // namespace vqlm
