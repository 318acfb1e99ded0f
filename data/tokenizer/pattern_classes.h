// Sets of characters as they stand between the brackets of a regular expression.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/unicode_tables.h"

namespace vqlm {

constexpr std::uint32_t last_code_point = 0x10FFFF;
constexpr std::uint32_t not_ascii = 0x80;  // in patterns of bytes: all that a text of ASCII does not have

/// "\x{1C89}-\x{1C8A}..."
std::string class_items(std::span<const CodePoints> ranges);

/// All other code points; ranges must rise.
std::vector<CodePoints> complement(std::span<const CodePoints> ranges);

/// ASCII's members of a property of additions_to().
std::string_view ascii_items(std::string_view property);

}  // namespace vqlm
