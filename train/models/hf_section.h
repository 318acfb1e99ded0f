// Values of a JSON object by key, checked, with errors that name file, key and value.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/error.h"

namespace vqlm {

/// One object of config.json; null counts as absent, as it does for Python's readers.
class HfSection {
 public:
  HfSection(const nlohmann::json& json, std::string file, std::string prefix)
      : json_(&json), file_(std::move(file)), prefix_(std::move(prefix)) {}

  /// Present, if only as null.
  bool contains(const char* key) const { return json_->contains(key); }
  bool has(const char* key) const { return json_->contains(key) && !(*json_)[key].is_null(); }

  [[noreturn]] void refuse(const char* key, const std::string& reason) const {
    throw Error(fmt::format("{}: {}{} = {} {}", file_, prefix_, key,
                            (*json_)[key].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), reason));
  }

  std::int64_t integer(const char* key, std::optional<std::int64_t> absent = std::nullopt,
                       std::uint64_t least = 1) const {
    if (!has(key)) return fall_back(key, absent);
    const nlohmann::json& value = (*json_)[key];
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < least ||
        value.get<std::uint64_t>() > std::numeric_limits<std::int32_t>::max())
      refuse(key, fmt::format("is no size: it must be a whole number of at least {}", least));
    return value.get<std::int64_t>();
  }

  float number(const char* key, std::optional<float> absent = std::nullopt) const {
    if (!has(key)) return fall_back(key, absent);
    const nlohmann::json& value = (*json_)[key];
    const double number = value.is_number() ? value.get<double>() : 0;
    if (!(number > 0) || !std::isfinite(static_cast<float>(number))) refuse(key, "must be a positive number");
    return static_cast<float>(number);
  }

  bool flag(const char* key, bool absent) const {
    if (!has(key)) return absent;
    if (!(*json_)[key].is_boolean()) refuse(key, "must be true or false");
    return (*json_)[key].get<bool>();
  }

  std::string text(const char* key, std::optional<std::string> absent = std::nullopt) const {
    if (!has(key)) return fall_back(key, absent);
    if (!(*json_)[key].is_string()) refuse(key, "must be a string");
    return (*json_)[key].get<std::string>();
  }

  HfSection object(const char* key) const {
    if (!(*json_)[key].is_object()) refuse(key, "must be an object");
    return {(*json_)[key], file_, prefix_ + key + "."};
  }

  /// A list, which the caller checks element by element.
  const nlohmann::json& list(const char* key) const {
    if (!(*json_)[key].is_array()) refuse(key, "must be a list");
    return (*json_)[key];
  }

 private:
  template <class T>
  T fall_back(const char* key, const std::optional<T>& absent) const {
    if (!absent) throw Error(fmt::format("{}: has no {}{}, which the model needs", file_, prefix_, key));
    return *absent;
  }

  const nlohmann::json* json_;
  std::string file_;
  std::string prefix_;
};

}  // namespace vqlm
