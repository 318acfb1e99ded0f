#include "data/tokenizer/tokenizer_json_reader.h"

#include <spdlog/fmt/fmt.h>

#include "core/error.h"

namespace vqlm {

namespace {

constexpr std::size_t longest_shown = 80;

simdjson::dom::element null_element() {
  static simdjson::dom::parser parser;
  static const simdjson::dom::element null = parser.parse(std::string_view("null"));
  return null;
}

}  // namespace

JsonValue JsonValue::operator[](std::string_view key) const {
  simdjson::dom::element member;
  const std::string where = fmt::format("{}{}{}", place, place.ends_with(": ") ? "" : ".", key);
  if (object().at_key(key).get(member) != simdjson::SUCCESS) return {null_element(), where};
  return {member, where};
}

std::string_view JsonValue::text() const {
  std::string_view value;
  if (element.get_string().get(value) != simdjson::SUCCESS) damaged("is no text");
  return value;
}

bool JsonValue::boolean() const {
  bool value = false;
  if (element.get_bool().get(value) != simdjson::SUCCESS) damaged("is neither true nor false");
  return value;
}

std::int64_t JsonValue::id() const {
  // Vocabularies have no gaps worth mentioning; a wild id would only be memory.
  constexpr std::int64_t most = std::int64_t{1} << 22;
  std::int64_t value = 0;
  if (element.get_int64().get(value) != simdjson::SUCCESS || value < 0 || value >= most) {
    damaged("is no id from 0 to 2^22 - 1");
  }
  return value;
}

simdjson::dom::array JsonValue::array() const {
  simdjson::dom::array value;
  if (element.get_array().get(value) != simdjson::SUCCESS) damaged("is no array");
  return value;
}

simdjson::dom::object JsonValue::object() const {
  simdjson::dom::object value;
  if (element.get_object().get(value) != simdjson::SUCCESS) damaged("is no object");
  return value;
}

void JsonValue::refuse(std::string_view what_is_known) const {
  std::string shown = simdjson::minify(element);
  if (shown.size() > longest_shown) shown = shown.substr(0, longest_shown) + "...";
  throw Error(
      fmt::format("{} is {}, which is not supported, only {}; tokenize with another program and give ids by "
                  "--from-tokens",
                  place, shown, what_is_known));
}

void JsonValue::damaged(std::string_view what) const {
  throw Error(fmt::format("{} {}; copy the file again from its model", place, what));
}

JsonValue element_of(const JsonValue& array, simdjson::dom::element element, std::size_t index) {
  return {element, fmt::format("{}[{}]", array.place, index)};
}

}  // namespace vqlm
