#include "data/tokenizer/pattern_rewrite.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "core/error.h"
#include "data/tokenizer/pattern_classes.h"
#include "data/tokenizer/unicode_tables.h"
#include "data/tokenizer/utf8.h"

namespace vqlm {

namespace {

enum class Alphabet { unicode, ascii };

/// Reads the pattern from left to right.
class Rewriter {
 public:
  Rewriter(std::string_view pattern, const std::string& name, Alphabet alphabet)
      : pattern_(pattern), name_(name), ascii_(alphabet == Alphabet::ascii) {}

  std::string run() {
    while (at_ < pattern_.size()) element();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct, std::string_view why) const {
    throw Error(
        fmt::format("{}: the regular expression \"{}\" has {}, {}; tokenize with another program and give ids by "
                    "--from-tokens",
                    name_, pattern_, construct, why));
  }
  [[noreturn]] void refuse(std::string_view construct) const { refuse(construct, "which is not supported"); }

  bool at_end() const { return at_ >= pattern_.size(); }
  char peek(std::size_t ahead = 0) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }
  bool take(std::string_view word) {
    if (!pattern_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  void element();
  void group();
  void quantifier();
  void counts();
  void char_class();
  void class_range(std::uint32_t first);
  std::uint32_t literal();
  std::uint32_t number(std::size_t digits);
  std::string property(bool in_class);
  bool class_escape(bool in_class);
  void put(std::uint32_t code);
  void check_folds(std::uint32_t code);

  std::string_view pattern_;
  const std::string& name_;
  bool ascii_;
  std::string out_;
  std::size_t at_ = 0;
  bool quantifiable_ = false;
  std::vector<bool> caseless_{false};  // of the open groups
  std::uint32_t previous_ = 0;         // literal just before, of a caseless group
};

void Rewriter::element() {
  const char c = peek();
  if (c == '(') return group();
  if (c == ')') {
    if (caseless_.size() == 1) refuse("a ')' without '('");
    caseless_.pop_back();
    ++at_;
    out_ += ')';
    quantifiable_ = true;
    previous_ = 0;
    return;
  }
  if (c == '*' || c == '+' || c == '?' || c == '{') return quantifier();
  if (c == '^' || c == '$') refuse(fmt::format("the anchor {}", c));
  if (c == '[') {
    char_class();
  } else if (c == '|' || c == '.') {
    out_ += c;
    ++at_;
    previous_ = 0;
    quantifiable_ = c == '.';
    return;
  } else if (c == '\\' && class_escape(false)) {
    previous_ = 0;
  } else {
    const std::uint32_t code = literal();
    check_folds(code);
    put(code);
  }
  quantifiable_ = true;
}

void Rewriter::group() {
  constexpr std::string_view kinds[] = {"(?:", "(?i:", "(?-i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
  quantifiable_ = false;
  previous_ = 0;
  for (const std::string_view kind : kinds) {
    if (!take(kind)) continue;
    out_ += kind;
    caseless_.push_back(kind == "(?i:" || (kind != "(?-i:" && caseless_.back()));
    return;
  }
  if (peek(1) == '?' || peek(1) == '*') refuse(fmt::format("the group {}", pattern_.substr(at_, 4)));
  ++at_;
  out_ += "(?:";
  caseless_.push_back(caseless_.back());
}

void Rewriter::quantifier() {
  if (!quantifiable_) refuse(fmt::format("the quantifier {} behind nothing", peek()));
  quantifiable_ = false;
  previous_ = 0;
  if (peek() == '{') return counts();
  out_ += peek();
  ++at_;
  if (peek() == '?' || peek() == '+') {  // lazy, possessive
    out_ += peek();
    ++at_;
  }
}

/// {n}, {n,}, {n,m}, {,m}. What stands behind them means other things in Oniguruma.
void Rewriter::counts() {
  const std::size_t end = pattern_.find('}', at_);
  const std::string_view inside = pattern_.substr(at_ + 1, end == std::string_view::npos ? end : end - at_ - 1);
  const std::size_t comma = std::min(inside.find(','), inside.size());
  const auto digits = [](std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  const std::string_view least = inside.substr(0, comma);
  const std::string_view most = comma < inside.size() ? inside.substr(comma + 1) : std::string_view();
  if (end == std::string_view::npos || (least.empty() && most.empty()) || !digits(least) || !digits(most)) {
    refuse(fmt::format("{{{}", inside.substr(0, 8)), "which is no count");
  }
  at_ = end + 1;
  if (peek() == '?' || peek() == '+' || peek() == '*' || peek() == '{') {
    refuse(fmt::format("{{{}}}{}", inside, peek()));
  }
  out_ += fmt::format("{{{}{}", least.empty() ? "0" : least, comma < inside.size() ? "," : "");
  out_ += most;
  out_ += '}';
}

void Rewriter::char_class() {
  ++at_;
  out_ += '[';
  if (take("^")) out_ += '^';
  if (peek() == ']') refuse("an empty class");
  while (!at_end() && peek() != ']') {
    if (peek() == '[') refuse("a class inside a class");
    if (pattern_.substr(at_).starts_with("&&")) refuse("&& in a class");
    if (peek() == '\\' && class_escape(true)) {
      if (peek() == '-' && peek(1) != ']') refuse("a range that begins with a class");
      continue;
    }
    class_range(literal());
  }
  if (!take("]")) refuse("a class without its ]");
  out_ += ']';
  previous_ = 0;
}

/// One character of a class, or a range.
void Rewriter::class_range(std::uint32_t first) {
  if (caseless_.back() && first >= 0x80) refuse("a character beyond ASCII under (?i:");
  put(first);
  if (peek() != '-' || peek(1) == ']' || peek(1) == '\0') return;
  ++at_;
  if (peek() == '[') refuse("a class inside a class");
  const std::uint32_t last = literal();
  if (last < first) refuse("a range that runs backwards");
  if (caseless_.back() && last >= 0x80) refuse("a character beyond ASCII under (?i:");
  out_ += '-';
  put(last);
}

/// Takes the escape of a class of characters; false (and nothing taken) where it is one of a single character.
bool Rewriter::class_escape(bool in_class) {
  const auto items = [&](const std::string& inside) { out_ += in_class ? inside : "[" + inside + "]"; };
  switch (peek(1)) {
    case 's':
      items(ascii_ ? "\\x{9}-\\x{D}\\x{20}" : class_items(white_space()));
      break;
    case 'S':
      items(ascii_ ? "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{7F}" : class_items(complement(white_space())));
      break;
    case 'd':
      items(ascii_ ? "0-9" : "\\p{Nd}" + class_items(*additions_to("Nd")));
      break;
    case 'p':
    case 'P':
      out_ += property(in_class);
      return true;
    default:
      return false;
  }
  at_ += 2;
  return true;
}

/// \p{Name}, \P{Name}, \p{^Name}
std::string Rewriter::property(bool in_class) {
  const std::size_t begin = at_;
  const std::size_t end = pattern_.find('}', at_);
  if (peek(2) != '{' || end == std::string_view::npos) refuse(pattern_.substr(at_, 3));
  const std::string_view whole = pattern_.substr(begin, end + 1 - begin);
  std::string_view key = whole.substr(3, whole.size() - 4);
  bool negated = whole[1] == 'P';
  if (key.starts_with('^')) {
    negated = !negated;
    key.remove_prefix(1);
  }
  const auto additions = additions_to(key);
  if (!additions) refuse(whole, "a property whose members are not known here");
  const bool of_a_case = key == "Lu" || key == "Ll" || key == "Lt";
  if (of_a_case && caseless_.back()) refuse(fmt::format("{} under (?i:", whole));
  if (negated && in_class) refuse(fmt::format("{} inside a class", whole));
  at_ = end + 1;
  const std::string items =
      ascii_ ? std::string(ascii_items(key)) : fmt::format("\\p{{{}}}{}", key, class_items(*additions));
  if (in_class) return items;
  return fmt::format("[{}{}]", negated ? "^" : "", items);
}

std::uint32_t Rewriter::number(std::size_t digits) {
  std::uint32_t value = 0;
  const std::string_view text = pattern_.substr(at_, digits);
  for (const char c : text) {
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0) refuse("an escape that is no hexadecimal number");
    value = value * 16 + static_cast<std::uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  if (text.size() < digits || digits == 0 || digits > 8 || value > last_code_point) {
    refuse("an escape that is no hexadecimal number");
  }
  at_ += digits;
  return value;
}

/// Takes one character, escaped or not.
std::uint32_t Rewriter::literal() {
  if (!take("\\")) return next_code_point(pattern_, at_);
  if (at_end()) refuse("a \\ at its end");
  const char c = peek();
  if (std::isalnum(static_cast<unsigned char>(c)) == 0) return next_code_point(pattern_, at_);
  ++at_;
  switch (c) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case 'u':
      return number(4);
    case 'x': {
      if (!take("{")) break;  // \xHH is a byte of UTF-8
      const std::uint32_t code = number(std::min(pattern_.find('}', at_), pattern_.size()) - at_);
      take("}");
      return code;
    }
    default:
      break;
  }
  refuse(fmt::format("the escape \\{}", c));
}

void Rewriter::put(std::uint32_t code) {
  if (ascii_) code = std::min(code, not_ascii);
  if (code < 0x80 && std::isalnum(static_cast<int>(code)) != 0) {
    out_ += static_cast<char>(code);
  } else {
    out_ += fmt::format("\\x{{{:X}}}", code);
  }
}

/// Without regard to case Oniguruma takes some pairs of letters for one character, as "ss" and the sharp s (Unicode's full
/// case folding); PCRE2 does not.
void Rewriter::check_folds(std::uint32_t code) {
  if (!caseless_.back()) return;
  if (code >= 0x80) refuse("a character beyond ASCII under (?i:");
  const auto low = static_cast<std::uint32_t>(std::tolower(static_cast<int>(code)));
  const bool folds = (previous_ == 's' && (low == 's' || low == 't')) ||
                     (previous_ == 'f' && (low == 'f' || low == 'i' || low == 'l'));
  if (folds) refuse(fmt::format("\"{}{}\" under (?i:", static_cast<char>(previous_), static_cast<char>(low)));
  previous_ = low;
}

}  // namespace

RewrittenPattern rewritten_pattern(std::string_view pattern, const std::string& name) {
  return {Rewriter(pattern, name, Alphabet::unicode).run(), Rewriter(pattern, name, Alphabet::ascii).run()};
}

RewrittenPattern literal_pattern(std::string_view text) {
  RewrittenPattern pattern;
  for (std::size_t at = 0; at < text.size();) {
    const std::uint32_t code = next_code_point(text, at);
    pattern.unicode += fmt::format("\\x{{{:X}}}", code);
    pattern.ascii += fmt::format("\\x{{{:X}}}", std::min(code, not_ascii));
  }
  return pattern;
}

RewrittenPattern digits_pattern(DigitRuns runs) {
  const char* end = runs == DigitRuns::together ? "]+" : "]";
  return {"[\\p{N}" + class_items(additions_to_digits()) + end, std::string("[0-9") + end};
}

}  // namespace vqlm
