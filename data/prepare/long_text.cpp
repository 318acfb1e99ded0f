#include "data/prepare/long_text.h"

#include <algorithm>
#include <cctype>

namespace vqlm {

namespace {

constexpr std::string_view white_space = " \t\r\n\v\f";
constexpr std::string_view space_symbol = "\xE2\x96\x81";  // U+2581, SentencePiece's way to write a space

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Bytes between two places where white space begins or ends.
std::size_t longest_stretch(std::string_view text) {
  std::size_t longest = 0;
  for (bool blank = false; !text.empty(); blank = !blank) {
    const std::size_t end = blank ? text.find_first_not_of(white_space) : text.find_first_of(white_space);
    const std::size_t length = std::min(end, text.size());
    longest = std::max(longest, length);
    text.remove_prefix(length);
  }
  return longest;
}

/// Moves a place back to where a UTF-8 character begins.
std::size_t at_character(std::string_view text, std::size_t place) {
  while (place > 0 && place < text.size() && (static_cast<unsigned char>(text[place]) & 0xC0u) == 0x80u) --place;
  return place;
}

/// Bytes of the longest word that byte-level BPE cuts a text to.
class LongestWord : public WordSink {
 public:
  static std::size_t of(const Tokenizer& tokenizer, std::string_view text) {
    LongestWord longest;
    tokenizer.cut(text, longest);
    return longest.bytes_;
  }

 private:
  void word(std::string_view bytes) override { bytes_ = std::max(bytes_, bytes.size()); }
  void token(std::uint32_t) override {}
  std::size_t bytes_ = 0;
};

}  // namespace

LongTextEncoder::LongTextEncoder(const Tokenizer& tokenizer, std::size_t most_at_once)
    : tokenizer_(tokenizer), most_at_once_(most_at_once), words_(tokenizer) {
  const TokenizerTraits& traits = tokenizer.traits();
  // A unigram model's best way through the text is a sum over all of it, whose rounding a cut would change. And the part
  // behind a cut must begin with its space, which the model puts there itself, or leaves there.
  if (!traits.bpe || !(traits.dummy_prefix || traits.plain_normalization)) return;
  for (unsigned c = 0; c < 128; ++c) ends_word_[c] = is_alphanumeric(static_cast<char>(c));
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_text_piece(id)) continue;
    const std::string& piece = tokenizer.piece(id);
    for (std::size_t i = 1; i < piece.size(); ++i) {
      const bool space = piece[i] == ' ' || piece.compare(i, space_symbol.size(), space_symbol) == 0;
      if (!space) continue;
      for (const int c : {std::tolower(static_cast<unsigned char>(piece[i - 1])),
                          std::toupper(static_cast<unsigned char>(piece[i - 1]))}) {
        ends_word_[static_cast<std::size_t>(c)] = false;  // normalisation may fold cases
      }
    }
  }
}

bool LongTextEncoder::encode(std::string_view text, std::vector<std::uint32_t>& ids) {
  if (tokenizer_.kind() == TokenizerKind::byte_level_bpe) {  // which cuts the text itself
    if (text.size() > most_at_once_ && LongestWord::of(tokenizer_, text) > most_at_once_) return false;
    words_.encode(text, ids);
    return true;
  }
  // Of SentencePiece's models WordCache encodes text that holds the symbol at once.
  const bool at_once = text.find(space_symbol) != std::string_view::npos;
  const auto in_words = [&] { return words_.active() && !at_once && longest_stretch(text) <= most_at_once_; };
  const std::size_t piece = most_at_once_ / 4;
  if (text.size() <= piece || in_words()) {
    words_.encode(text, ids);
    return true;
  }
  const std::size_t before = ids.size();
  while (text.size() > piece) {
    const std::size_t cut = find_cut(text, piece, std::min(text.size(), most_at_once_));
    if (cut == std::string_view::npos) {
      if (text.size() <= most_at_once_) break;
      ids.resize(before);
      return false;
    }
    words_.encode(text.substr(0, cut), ids);
    text.remove_prefix(behind(cut));
  }
  words_.encode(text, ids);
  return true;
}

std::size_t LongTextEncoder::find_cut(std::string_view text, std::size_t from, std::size_t end) const {
  int tries = 16;  // where normalisation minds one cut it mostly minds all
  for (std::size_t i = std::max<std::size_t>(from, 1); i + 1 < end && tries > 0; ++i) {
    const bool between = text[i] == ' ' && ends_word_[static_cast<unsigned char>(text[i - 1])];
    if (!between || !is_alphanumeric(text[i + 1])) continue;
    if (holds(text, i)) return i;
    --tries;
  }
  return std::string_view::npos;
}

bool LongTextEncoder::holds(std::string_view text, std::size_t space) const {
  constexpr std::size_t context = 1024;
  const std::size_t begin = at_character(text, space > context ? space - context : 0);
  const std::size_t end = at_character(text, std::min(space + context, text.size()));
  std::vector<std::uint32_t> whole;
  std::vector<std::uint32_t> cut;
  tokenizer_.encode(text.substr(begin, end - begin), whole);
  tokenizer_.encode(text.substr(begin, space - begin), cut);
  tokenizer_.encode(text.substr(behind(space), end - behind(space)), cut);
  return whole == cut;
}

}  // namespace vqlm
