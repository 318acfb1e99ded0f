// The table of configuration keys: the one place where a key's name, member, help and range stand. Used by
// config.cpp only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "train/config/config.h"

namespace vqlm::config_keys {

/// The numbers a key may hold: low to high, low itself only where included.
struct Range {
  double low = 0;
  double high = 0;
  enum class Low { included, excluded } low_end = Low::included;
};

template <class T>
using Access = T& (*)(Config&);

/// A key with a fixed choice of words; the index of a word is the enum's value.
struct Choice {
  std::span<const std::string_view> words;
  int (*get)(const Config&);
  void (*set)(Config&, int);
};

using Member =
    std::variant<Access<bool>, Access<int>, Access<std::int64_t>, Access<float>, Access<std::string>, Choice>;

struct Key {
  std::string_view section;
  std::string_view name;
  Member member;
  Range range;  // numbers only
  std::string_view help;

  std::string full_name() const { return std::string(section) + "." + std::string(name); }
};

/// All keys, those of a section together.
std::span<const Key> all();

}  // namespace vqlm::config_keys
