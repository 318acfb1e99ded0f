#include "train/config/ngram_tables.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include "core/error.h"

namespace vqlm {
namespace {

constexpr std::int64_t highest_order = 8;
constexpr std::int64_t most_rows = 2147483647;  // row numbers are 32-bit
constexpr std::size_t most_tables = 16;

std::int64_t number_in(const toml::table& table, std::string_view field, std::int64_t low, std::int64_t high,
                       std::string_view origin) {
  const auto number = table[field].value_exact<std::int64_t>();
  if (number && *number >= low && *number <= high) return *number;
  throw UsageError(
      fmt::format("{}: input.tables: {} must be a whole number from {} to {}", origin, field, low, high));
}

}  // namespace

std::vector<NgramTable> read_ngram_tables(const toml::node& node, std::string_view origin) {
  const toml::array* const list = node.as_array();
  if (list == nullptr)
    throw UsageError(fmt::format("{}: input.tables must be a list: [{{order = 2, rows = 8192}}]", origin));
  if (list->size() > most_tables)
    throw UsageError(fmt::format("{}: input.tables: {} tables; at most {} are possible", origin, list->size(), most_tables));
  std::vector<NgramTable> tables;
  for (const toml::node& element : *list) {
    const toml::table* const table = element.as_table();
    if (table == nullptr)
      throw UsageError(fmt::format("{}: input.tables must hold tables: {{order = 2, rows = 8192}}", origin));
    for (const auto& [field, value] : *table) {
      if (field.str() != "order" && field.str() != "rows")
        throw UsageError(fmt::format("{}: input.tables has no {}; a table has order and rows", origin, field.str()));
    }
    tables.push_back({.order = static_cast<int>(number_in(*table, "order", 2, highest_order, origin)),
                      .rows = number_in(*table, "rows", 1, most_rows, origin)});
  }
  return tables;
}

std::vector<NgramTable> read_ngram_tables(const std::string& text, std::string_view origin) {
  toml::table said;
  try {
    said = toml::parse("tables = " + text);
  } catch (const toml::parse_error&) {
    throw UsageError(
        fmt::format("{}: input.tables = {}: write a list: 'input.tables=[{{order=2,rows=8192}}]'", origin, text));
  }
  return read_ngram_tables(*said.get("tables"), origin);
}

std::string ngram_tables_text(const std::vector<NgramTable>& tables) {
  std::vector<std::string> texts;
  for (const NgramTable& table : tables)
    texts.push_back(fmt::format("{{order = {}, rows = {}}}", table.order, table.rows));
  return fmt::format("[{}]", fmt::join(texts, ", "));
}

}  // namespace vqlm
