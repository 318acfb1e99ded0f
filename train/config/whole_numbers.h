// Keys that hold a list of whole numbers: head.cutoffs = [2048, 8192].
#pragma once

#include <toml++/toml.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

/// Throws UsageError naming `origin` and the key for what is no list of whole numbers.
std::vector<std::int64_t> read_whole_numbers(const toml::node& node, std::string_view key, std::string_view origin);
/// The same of a command line's value.
std::vector<std::int64_t> read_whole_numbers(const std::string& text, std::string_view key, std::string_view origin);
/// As TOML; reading it gives the same numbers.
std::string whole_numbers_text(const std::vector<std::int64_t>& numbers);

}  // namespace vqlm
