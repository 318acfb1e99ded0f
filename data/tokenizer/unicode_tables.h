// Code points that PyPI's `tokenizers` puts into other classes than PCRE2 and utf8proc do, since they know other versions of
// Unicode (unicode_tables.cpp is made by tests/tokenizers/make_unicode_tables.py; docs/tokenizers.md lists them).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace vqlm {

/// Code points first ... last.
struct CodePoints {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};

/// What \p{property} of Oniguruma (Unicode 16) holds besides PCRE2's; nothing for a property that is not known here.
std::optional<std::span<const CodePoints>> additions_to(std::string_view property);

/// What the pre-tokenizer Digits takes for a digit (Rust's char::is_numeric, Unicode 17) besides PCRE2's \p{N}.
std::span<const CodePoints> additions_to_digits();

/// \s of Oniguruma and of Rust's regex: Unicode's White_Space. PCRE2's has U+180E, too.
std::span<const CodePoints> white_space();

/// Code points that Unicode gave a combining class, or a part in a composition, after the tables of tokenizers' NFC were made:
/// there they are characters like any other.
std::span<const CodePoints> inert_in_nfc();

}  // namespace vqlm
