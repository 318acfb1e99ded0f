// [[data.mix]] and [[data.heldout]]: the tables of a configuration that may stand in it several times, which the table of
// keys (config_keys.h) cannot hold. Used by config*.cpp only.
#pragma once

#include <toml++/toml.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/config/config.h"

namespace vqlm::source_tables {

/// What a configuration file or the command line says of sources.
struct Sayings {
  std::optional<std::vector<MixEntry>> mix;
  std::optional<std::vector<HeldoutEntry>> heldout;
  struct Override {
    std::string name, field, value;
  };
  std::vector<Override> mix_overrides, heldout_overrides;
};

/// Reads an array of tables and returns true where this is one that stands here: "data.mix", "data.heldout". Throws
/// UsageError naming file and line for a key that there is none, a value of the wrong type and a name that is missing.
bool read(Sayings& said, std::string_view full_name, const toml::node& node, const std::string& file);

/// The same for --set data.mix.NAME.weight=0.5 (or train, from_step) and --set data.heldout.NAME=GLOB.
bool read_override(Sayings& said, std::string_view full_name, std::string_view value);

/// The file's tables, then the overrides; a new name is a new source.
void apply(const Sayings& said, DataSection& data);

/// Throws UsageError for sources that do not go together: names that stand for two things, no shards, weights that are
/// out of range or all 0, both data.train and [[data.mix]].
void check(const DataSection& data);

/// As TOML; reading it gives the same entries.
std::string to_toml(const DataSection& data);

/// Lines for --help, as describe_keys() has them.
std::string describe();

}  // namespace vqlm::source_tables
