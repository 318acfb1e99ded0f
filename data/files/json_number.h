// Whole numbers in JSON. nlohmann's own get<T>() converts whatever number it finds: it cuts fractions off, wraps -1 to
// 2^64 - 1, and for 1e300 its behaviour is undefined.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace vqlm {

/// Readers catch it beside nlohmann::json::exception and name the file.
class NotWholeNumber : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws NotWholeNumber unless `value` is a whole number in T's range.
template <class T>
T whole_number(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  } else if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  }
  throw NotWholeNumber("a " + std::string(value.is_number() ? value.dump() : value.type_name()) +
                       " where a whole number from " + std::to_string(std::numeric_limits<T>::min()) + " to " +
                       std::to_string(std::numeric_limits<T>::max()) + " belongs");
}

/// Reads every element of an array as whole_number() does.
template <class T>
std::vector<T> whole_numbers(const nlohmann::json& values) {
  if (!values.is_array()) throw NotWholeNumber("a " + std::string(values.type_name()) + " where an array belongs");
  std::vector<T> numbers;
  numbers.reserve(values.size());
  for (const nlohmann::json& value : values) numbers.push_back(whole_number<T>(value));
  return numbers;
}

}  // namespace vqlm
