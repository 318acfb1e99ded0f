#include "train/config/whole_numbers.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/error.h"

namespace vqlm {

std::vector<std::int64_t> read_whole_numbers(const toml::node& node, std::string_view key, std::string_view origin) {
  const toml::array* const list = node.as_array();
  if (list == nullptr)
    throw UsageError(fmt::format("{}: {} must be a list of whole numbers: [2048, 8192]", origin, key));
  std::vector<std::int64_t> numbers;
  for (const toml::node& element : *list) {
    const auto number = element.value_exact<std::int64_t>();
    if (!number) throw UsageError(fmt::format("{}: {} must hold whole numbers alone: [2048, 8192]", origin, key));
    numbers.push_back(*number);
  }
  return numbers;
}

std::vector<std::int64_t> read_whole_numbers(const std::string& text, std::string_view key, std::string_view origin) {
  toml::table said;
  try {
    said = toml::parse("numbers = " + text);
  } catch (const toml::parse_error&) {
    throw UsageError(fmt::format("{}: {} = {}: write a list: '{}=[2048,8192]'", origin, key, text, key));
  }
  return read_whole_numbers(*said.get("numbers"), key, origin);
}

std::string whole_numbers_text(const std::vector<std::int64_t>& numbers) {
  return fmt::format("[{}]", fmt::join(numbers, ", "));
}

}  // namespace vqlm
