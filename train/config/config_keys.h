// The table of configuration keys: the one place where a key's name, member, range, help and part in a model's
// identity stand. Used by config.cpp and same_model.cpp only.
#pragma once

#include <array>
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
struct Field {
  T (*get)(const Config&);
  void (*set)(Config&, T);
};

/// A key with a fixed choice of words; the index of a word is the enum's value.
struct Choice {
  std::span<const std::string_view> words;
  int (*get)(const Config&);
  void (*set)(Config&, int);
};

using Member = std::variant<Field<bool>, Field<int>, Field<std::int64_t>, Field<float>, Field<std::string>,
                            Field<std::vector<NgramTable>>, Field<std::vector<std::int64_t>>, Choice>;

/// What has to agree in a key where training goes on from something saved (same_model.h).
enum class Identity {
  no,
  model,      // two models
  averages,   // two runs of which one averages codes: it saves averages and no moments of them
  optimizer,  // two runs, one of which goes on with the other's moments
  samples,    // two runs that read the same samples in one order
};

/// The choice without which a key is not there: another key, and the words of it that bring this one.
struct Needs {
  std::string_view key;  // full name; empty: the key is always there
  std::array<std::string_view, 2> words = {};
};

struct Key {
  std::string_view section;
  std::string_view name;
  Member member;
  Range range;  // numbers only
  std::string_view help;
  Identity identity = Identity::no;
  Needs needs = {};

  std::string full_name() const { return std::string(section) + "." + std::string(name); }
  /// The outermost choice that leaves the key out of this configuration; null where it is there, as it must be for its
  /// member to be read or set.
  const Needs* missing(const Config& config) const;
  /// The value as a configuration file writes it; reading it gives the same value, bit for bit.
  std::string text(const Config& config) const;
};

/// A TOML basic string.
std::string toml_string(std::string_view text);

/// A visitor of variants that is a sum of lambdas.
template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

/// All keys, those of a section together, and a key behind those that it needs.
std::span<const Key> all();
/// Whether other keys need this one.
bool decides(const Key& key);
/// `config` with the choices that the key needs.
Config with_key(Config config, const Key& key);

}  // namespace vqlm::config_keys
