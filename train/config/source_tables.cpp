#include "train/config/source_tables.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "core/error.h"
#include "train/config/config_keys.h"
#include "train/config/nearest_name.h"

namespace vqlm::source_tables {
namespace {

constexpr std::string_view mix_prefix = "data.mix.", heldout_prefix = "data.heldout.";
constexpr std::array<std::string_view, 5> mix_fields = {"name", "train", "weight", "from_step", "from_sample"};
constexpr std::array<std::string_view, 2> heldout_fields = {"name", "shards"};
constexpr double largest_weight = 10'000;
constexpr double many = 1e12;  // steps, samples: beyond every run
constexpr std::size_t most_sources = 1000;

std::string place(const std::string& file, const toml::node& node) {
  return fmt::format("{}:{}", file, node.source().begin.line);
}

[[noreturn]] void refuse_field(const std::string& origin, std::string_view table, std::string_view field,
                               std::span<const std::string_view> known) {
  const std::vector<std::string> names(known.begin(), known.end());
  throw UsageError(
      fmt::format("{}: [[{}]] has no key {}; the nearest is {}", origin, table, field, nearest_name(field, names)));
}

std::string text_in(const toml::node& node, std::string_view key, const std::string& origin) {
  if (const auto text = node.value_exact<std::string>()) return *text;
  throw UsageError(fmt::format("{}: {} must be a string", origin, key));
}

std::int64_t whole_in(const toml::node& node, std::string_view key, std::int64_t low, const std::string& origin) {
  const auto number = node.value_exact<std::int64_t>();
  if (number && *number >= low && static_cast<double>(*number) <= many) return *number;
  throw UsageError(fmt::format("{}: {} must be a whole number from {} on", origin, key, low));
}

void set_mix_field(MixEntry& entry, std::string_view field, const toml::node& node, const std::string& origin) {
  if (field == "name") {
    entry.name = text_in(node, "data.mix.name", origin);
  } else if (field == "train") {
    entry.train = text_in(node, "data.mix.train", origin);
  } else if (field == "weight") {
    const auto weight = node.value<double>();  // a whole number, too
    if (!weight || node.is_boolean()) throw UsageError(fmt::format("{}: data.mix.weight must be a number", origin));
    entry.weight = *weight;
  } else if (field == "from_step") {
    entry.from_step = whole_in(node, "data.mix.from_step", 1, origin);
  } else if (field == "from_sample") {
    entry.from_sample = whole_in(node, "data.mix.from_sample", 0, origin);
  } else {
    refuse_field(origin, "data.mix", field, mix_fields);
  }
}

void set_heldout_field(HeldoutEntry& entry, std::string_view field, const toml::node& node, const std::string& origin) {
  if (field == "name") {
    entry.name = text_in(node, "data.heldout.name", origin);
  } else if (field == "shards") {
    entry.shards = text_in(node, "data.heldout.shards", origin);
  } else {
    refuse_field(origin, "data.heldout", field, heldout_fields);
  }
}

template <class Entry, class SetField>
std::vector<Entry> read_tables(const toml::array& tables, std::string_view name, const std::string& file,
                               const SetField& set_field) {
  std::vector<Entry> entries;
  for (const toml::node& node : tables) {
    const toml::table* const table = node.as_table();
    if (table == nullptr) throw UsageError(fmt::format("{}: {} must be tables, [[{}]]", place(file, node), name, name));
    Entry entry;
    for (const auto& [field, value] : *table) set_field(entry, field.str(), value, place(file, value));
    if (entry.name.empty()) throw UsageError(fmt::format("{}: [[{}]] without a name", place(file, node), name));
    entries.push_back(std::move(entry));
  }
  return entries;
}

bool is_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || c == '_' || c == '-');
  });
}

template <class Number>
Number number_in(const Sayings::Override& said) {
  Number number{};
  const auto [end, status] = std::from_chars(said.value.data(), said.value.data() + said.value.size(), number);
  if (status == std::errc() && end == said.value.data() + said.value.size()) return number;
  throw UsageError(fmt::format("--set data.mix.{}.{} = {}: must be a number", said.name, said.field, said.value));
}

/// What the command line says of one source.
struct MixOverride {
  std::optional<std::string> train;
  std::optional<double> weight;
  std::optional<std::int64_t> from_step;
};

void read_field(const Sayings::Override& said, MixOverride& source) {
  if (said.field == "train") source.train = said.value;
  if (said.field == "weight") source.weight = number_in<double>(said);
  if (said.field == "from_step") source.from_step = number_in<std::int64_t>(said);
}

/// With a step the source has this one entry. A weight alone is for all stages in which it has one, and for the one in force of
/// a run that was continued; where it has none anywhere, from its last entry on.
void apply_to_mix(const std::string& name, const MixOverride& said, std::vector<MixEntry>& mix) {
  if (std::ranges::find(mix, name, &MixEntry::name) == mix.end()) mix.push_back({.name = name});
  if (said.from_step) {
    MixEntry one{.name = name, .from_step = *said.from_step};
    for (const MixEntry& entry : mix) {
      if (entry.name != name) continue;
      if (one.train.empty()) one.train = entry.train;
      one.weight = entry.weight;
    }
    *std::ranges::find(mix, name, &MixEntry::name) = one;
    bool is_first = true;
    std::erase_if(mix, [&](const MixEntry& entry) { return entry.name == name && !std::exchange(is_first, false); });
  }
  MixEntry* last = nullptr;
  MixEntry* in_force = nullptr;  // of a run that was continued: the newest stage that has begun
  bool weighs = false;
  for (MixEntry& entry : mix) {
    if (entry.name != name) continue;
    last = &entry;
    if (entry.from_sample != MixEntry::not_set) in_force = &entry;
    if (said.train) entry.train = *said.train;
    if (!said.weight || entry.weight == 0) continue;
    entry.weight = *said.weight;
    weighs = true;
  }
  if (said.weight && in_force != nullptr) in_force->weight = *said.weight;
  if (said.weight && in_force == nullptr && !weighs) last->weight = *said.weight;
}

void check_entry(const MixEntry& entry) {
  if (!is_name(entry.name))
    throw UsageError(fmt::format("data.mix.name = \"{}\": choose letters, digits, _ and -", entry.name));
  if (!(entry.weight >= 0 && entry.weight <= largest_weight)) {
    throw UsageError(
        fmt::format("data.mix: {} has weight {}: choose from 0 to {}", entry.name, entry.weight, largest_weight));
  }
  if (std::abs(entry.weight * MixEntry::weight_unit - static_cast<double>(entry.share())) > 1e-3) {
    throw UsageError(
        fmt::format("data.mix: {} has weight {}: choose one of at most six decimals", entry.name, entry.weight));
  }
  if (entry.from_step < 1 || static_cast<double>(entry.from_step) > many)
    throw UsageError(fmt::format("data.mix: {} has from_step {}; steps count from 1", entry.name, entry.from_step));
}

void check_mix(const DataSection& data) {
  if (!data.train.empty()) {
    throw UsageError(fmt::format("data.train = {} and [[data.mix]]: choose one of them", data.train));
  }
  if (data.sources() > most_sources)
    throw UsageError(fmt::format("data.mix: {} sources; at most {} can be mixed", data.sources(), most_sources));
  std::map<std::string, std::string> shards_of;
  std::set<std::pair<std::string, std::int64_t>> stages;
  bool begins = false;
  for (const MixEntry& entry : data.mix) {
    check_entry(entry);
    std::string& shards = shards_of[entry.name];
    if (!shards.empty() && !entry.train.empty() && shards != entry.train) {
      throw UsageError(
          fmt::format("data.mix: {} is {} and {}: give the second another name", entry.name, shards, entry.train));
    }
    if (shards.empty()) shards = entry.train;
    if (!stages.emplace(entry.name, entry.from_step).second) {
      throw UsageError(
          fmt::format("data.mix: {} has two entries from step {} on: leave one out", entry.name, entry.from_step));
    }
    // A run that was continued has what it began with from its checkpoint.
    begins = begins || (entry.from_step == 1 && entry.weight > 0) || entry.from_sample != MixEntry::not_set;
  }
  for (const auto& [name, shards] : shards_of) {
    if (shards.empty())
      throw UsageError(fmt::format("data.mix: {} has no shards: say train = \"shards/{}/train-*.h5\"", name, name));
  }
  if (!begins) throw UsageError("data.mix: no source has a weight from step 1 on; give one");
}

}  // namespace

bool read(Sayings& said, std::string_view full_name, const toml::node& node, const std::string& file) {
  if (full_name == "data.mix") {
    const toml::array* const tables = node.as_array();
    if (tables == nullptr)
      throw UsageError(fmt::format("{}: data.mix are tables: write [[data.mix]]", place(file, node)));
    said.mix = read_tables<MixEntry>(*tables, full_name, file, set_mix_field);
    return true;
  }
  if (full_name != "data.heldout" || !node.is_array()) return false;
  said.heldout = read_tables<HeldoutEntry>(*node.as_array(), full_name, file, set_heldout_field);
  return true;
}

bool read_override(Sayings& said, std::string_view full_name, std::string_view value) {
  const auto split = [&](std::string_view prefix) {
    const std::string_view rest = full_name.substr(prefix.size());
    const std::size_t dot = std::min(rest.find('.'), rest.size());
    return Sayings::Override{.name = std::string(rest.substr(0, dot)),
                             .field = std::string(rest.substr(std::min(dot + 1, rest.size()))),
                             .value = std::string(value)};
  };
  if (full_name.starts_with(mix_prefix)) {
    Sayings::Override override = split(mix_prefix);
    if (override.field.empty() || std::ranges::find(mix_fields, override.field) == mix_fields.end() ||
        override.field == "name" || override.field == "from_sample") {
      throw UsageError(fmt::format("--set {}: write data.mix.NAME.weight, .train or .from_step", full_name));
    }
    said.mix_overrides.push_back(std::move(override));
    return true;
  }
  if (!full_name.starts_with(heldout_prefix)) return false;
  Sayings::Override override = split(heldout_prefix);
  if (!override.field.empty() && override.field != "shards")
    throw UsageError(fmt::format("--set {}: write data.heldout.NAME=GLOB", full_name));
  said.heldout_overrides.push_back(std::move(override));
  return true;
}

void apply(const Sayings& said, DataSection& data) {
  if (said.mix) data.mix = *said.mix;
  if (said.heldout) data.heldout_sets = *said.heldout;
  std::vector<std::pair<std::string, MixOverride>> sources;  // in the order of their first words
  for (const Sayings::Override& override : said.mix_overrides) {
    auto source = std::ranges::find(sources, override.name, &std::pair<std::string, MixOverride>::first);
    if (source == sources.end()) source = sources.insert(sources.end(), {override.name, {}});
    read_field(override, source->second);
  }
  for (const auto& [name, source] : sources) apply_to_mix(name, source, data.mix);
  for (const Sayings::Override& override : said.heldout_overrides) {
    const auto found = std::ranges::find(data.heldout_sets, override.name, &HeldoutEntry::name);
    if (found != data.heldout_sets.end()) {
      found->shards = override.value;
    } else {
      data.heldout_sets.push_back({.name = override.name, .shards = override.value});
    }
  }
}

void check(const DataSection& data) {
  if (!data.mix.empty()) check_mix(data);
  if (!data.heldout_sets.empty() && !data.heldout.empty()) {
    throw UsageError(fmt::format("data.heldout = {} and [[data.heldout]]: choose one of them", data.heldout));
  }
  std::set<std::string> names;
  for (const HeldoutEntry& entry : data.heldout_sets) {
    if (!is_name(entry.name))
      throw UsageError(fmt::format("data.heldout.name = \"{}\": choose letters, digits, _ and -", entry.name));
    if (entry.shards.empty()) throw UsageError(fmt::format("data.heldout: {} has no shards", entry.name));
    if (!names.insert(entry.name).second)
      throw UsageError(fmt::format("data.heldout: two sets are named {}: give one another name", entry.name));
  }
}

std::string to_toml(const DataSection& data) {
  using config_keys::toml_string;
  std::string text;
  for (const MixEntry& entry : data.mix) {
    text += fmt::format("\n[[data.mix]]\nname = {}\n", toml_string(entry.name));
    if (!entry.train.empty()) text += fmt::format("train = {}\n", toml_string(entry.train));
    text += fmt::format("weight = {}\n", entry.weight);
    if (entry.from_step != 1) text += fmt::format("from_step = {}\n", entry.from_step);
    if (entry.from_sample >= 0) text += fmt::format("from_sample = {}\n", entry.from_sample);
  }
  for (const HeldoutEntry& entry : data.heldout_sets) {
    text +=
        fmt::format("\n[[data.heldout]]\nname = {}\nshards = {}\n", toml_string(entry.name), toml_string(entry.shards));
  }
  return text;
}

std::string describe() {
  std::string text =
      "Sources of text in place of data.train, each table [[data.mix]] (--set data.mix.NAME.weight=0.5):\n";
  const auto line = [&](std::string_view key, std::string_view value, std::string_view help) {
    text += fmt::format("  {:<24} {:<16} {}\n", key, value, help);
  };
  line("name", "", "of the source");
  line("train", "", "glob of its training shards; once a name");
  line("weight", "0",
       "its share / the sum of all weights, from from_step on until another entry of the name says otherwise");
  line("from_step", "1", "the first step with this weight");
  text += "Held-out sets in place of data.heldout, each table [[data.heldout]] (--set data.heldout.NAME=GLOB):\n";
  line("name", "", "of the set");
  line("shards", "", "glob of its shards");
  return text;
}

}  // namespace vqlm::source_tables
