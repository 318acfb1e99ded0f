// Oniguruma's regular expressions in PCRE2's words.
#pragma once

#include <string>
#include <string_view>

namespace vqlm {

/// Patterns for PCRE2 that match what Hugging Face's `tokenizers` match by `pattern`: \s without U+180E, \p{...} and \d with the code points of Unicode 16 (unicode_tables.h), groups without
/// capture. Known are literals, classes without nested ones, groups (?: (?i: (?= (?! (?<= (?<! (?>, and quantifiers. Throws
/// Error (beginning with `name`) that names any other construct, which might mean something else.
struct RewrittenPattern {
  std::string unicode;  // for PCRE2_UTF and PCRE2_UCP
  std::string ascii;    // for bytes: matches the same in a text of ASCII, with small tables in place of properties
};
RewrittenPattern rewritten_pattern(std::string_view pattern, const std::string& name);

/// A pattern that matches just this text.
RewrittenPattern literal_pattern(std::string_view text);

/// The pattern of the pre-tokenizer Digits: one digit, or all in a row.
enum class DigitRuns { one_by_one, together };
RewrittenPattern digits_pattern(DigitRuns runs);

}  // namespace vqlm
