#include "data/tokenizer/added_tokens.h"

#include <algorithm>

#include "data/tokenizer/unicode_tables.h"
#include "data/tokenizer/utf8.h"

namespace vqlm {

namespace {

bool is_space(std::uint32_t code) {
  return std::any_of(white_space().begin(), white_space().end(),
                     [=](const CodePoints& range) { return code >= range.first && code <= range.last; });
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
  for (std::uint32_t i = 0; i < tokens_.size(); ++i) {
    auto& places = beginnings_[static_cast<unsigned char>(tokens_[i].content[0])];
    if (places.empty()) first_bytes_ += tokens_[i].content[0];
    places.push_back(i);
  }
}

bool AddedTokenFinder::find(std::string_view text, std::size_t from, Found& found) const {
  if (tokens_.empty()) return false;
  for (std::size_t at = next_beginning(text, from); at < text.size(); at = next_beginning(text, at + 1)) {
    for (const std::uint32_t token : beginnings_[static_cast<unsigned char>(text[at])]) {
      const std::string& content = tokens_[token].content;
      if (!text.substr(at).starts_with(content)) continue;
      found = {at, at + content.size(), token};
      return true;
    }
  }
  return false;
}

/// The first byte from `from` on with which a token begins, or the text's size.
std::size_t AddedTokenFinder::next_beginning(std::string_view text, std::size_t from) const {
  if (first_bytes_.size() == 1) return std::min(text.find(first_bytes_[0], from), text.size());
  while (from < text.size() && beginnings_[static_cast<unsigned char>(text[from])].empty()) ++from;
  return from;
}

/// The token's place with the white space that it takes, on the left not before `after`, where the token before it ends.
AddedTokenFinder::Stripped AddedTokenFinder::with_spaces(std::string_view text, const Found& found,
                                                         std::size_t after) const {
  Stripped place{found.begin, found.end};
  if (tokens_[found.token].lstrip) {
    while (place.begin > after) {
      std::size_t before = place.begin - 1;
      while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xC0u) == 0x80u) --before;
      std::size_t at = before;
      if (!is_space(next_code_point(text, at))) break;
      place.begin = before;
    }
    place.begin = std::max(place.begin, after);
  }
  if (tokens_[found.token].rstrip) {
    while (place.end < text.size()) {
      std::size_t behind = place.end;
      if (!is_space(next_code_point(text, behind))) break;
      place.end = behind;
    }
  }
  return place;
}

}  // namespace vqlm
