// Regular expressions that cut a text into words, with the meaning that they have in Hugging Face's `tokenizers`.
//
// There they are Oniguruma's; here PCRE2 runs them, rewritten where it means something else (pattern_rewrite.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace vqlm {

/// Memory of one search. It belongs to one thread.
class MatchScratch {
 public:
  MatchScratch();
  ~MatchScratch();
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

 private:
  friend class SplitPattern;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One compiled pattern. const calls may come from several threads at once.
class SplitPattern {
 public:
  /// Compiles a pattern that rewritten_pattern() gave. Throws Error (beginning with `name`) for one that PCRE2 refuses or
  /// that matches the empty text.
  SplitPattern(const std::string& pattern, const std::string& name);
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  /// A place in the text: bytes [begin, end).
  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  /// Finds the first match that begins at `from` or later; false where there is none. `text` must be valid UTF-8 and `from`
  /// the beginning of a character. Throws Error where PCRE2 gives up.
  bool find(std::string_view text, std::size_t from, MatchScratch& scratch, Match& match) const;

  /// Calls word(std::string_view) for every match and every gap between matches, in order: the behavior "Isolated".
  template <class Word>
  void cut(std::string_view text, MatchScratch& scratch, Word&& word) const {
    Match match;
    std::size_t at = 0;
    while (at < text.size() && find(text, at, scratch, match)) {
      if (match.begin > at) word(text.substr(at, match.begin - at));
      word(text.substr(match.begin, match.end - match.begin));
      at = match.end;
    }
    if (at < text.size()) word(text.substr(at));
  }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqlm
