// Regular expressions that cut a text into words, with the meaning that they have in Hugging Face's `tokenizers`.
//
// There they are Oniguruma's; here PCRE2 runs them, rewritten where it means something else (pattern_rewrite.h). Runs of
// ASCII are searched by a pattern of bytes, which takes a third of the time: whatever such a search finds without looking at
// the run's end holds in the whole text, too (PCRE2's PARTIAL_HARD tells).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizer/pattern_rewrite.h"

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
  /// Compiles what rewritten_pattern() gave. Throws Error (beginning with `name`) for a pattern that PCRE2 refuses or that
  /// matches the empty text.
  SplitPattern(const RewrittenPattern& pattern, const std::string& name);
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;
  ~SplitPattern();

  /// A place in the text: bytes [begin, end).
  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  /// Calls word(std::string_view) for every match and every gap between matches, in order: the behavior "Isolated". `text`
  /// must be valid UTF-8. Throws Error where PCRE2 gives up.
  template <class Word>
  void cut(std::string_view text, MatchScratch& scratch, Word&& word) const {
    Match match;
    std::size_t at = 0;
    std::size_t ascii_end = 0;
    while (at < text.size() && next(text, at, ascii_end, scratch, match)) {
      if (match.begin > at) word(text.substr(at, match.begin - at));
      word(text.substr(match.begin, match.end - match.begin));
      at = match.end;
    }
    if (at < text.size()) word(text.substr(at));
  }

 private:
  struct Impl;

  /// Finds the first match that begins at `from` or later; false where there is none. ascii_end: where the run of ASCII
  /// ends that was looked at before, moved on as needed.
  bool next(std::string_view text, std::size_t from, std::size_t& ascii_end, MatchScratch& scratch, Match& match) const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace vqlm
