// Values of a tokenizer.json, and the words in which they are refused.
#pragma once

#include <simdjson.h>

#include <string>
#include <string_view>

namespace vqlm {

/// A value of the file with the words for it: "tokenizer.json: model.type".
struct JsonValue {
  simdjson::dom::element element;
  std::string place;  // the file and the value's path

  /// True where the value is null, or is not there.
  bool absent() const { return element.is_null(); }

  /// The member `key` of an object; a null where it is not there. Throws Error where this is no object.
  JsonValue operator[](std::string_view key) const;
  /// Values of one type. Throw Error for another.
  std::string_view text() const;
  bool boolean() const;
  bool boolean_or(bool when_absent) const { return absent() ? when_absent : boolean(); }
  std::int64_t id() const;
  simdjson::dom::array array() const;
  simdjson::dom::object object() const;

  /// Throws the Error that the value is not supported, with it as it stands in the file.
  [[noreturn]] void refuse(std::string_view what_is_known) const;
  /// Throws the Error that the file is damaged.
  [[noreturn]] void damaged(std::string_view what) const;
};

/// An element of an array.
JsonValue element_of(const JsonValue& array, simdjson::dom::element element, std::size_t index);

}  // namespace vqlm
