// Reading and writing a configuration through the table of keys.
#include "train/config/config.h"

#include <spdlog/fmt/fmt.h>

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/log.h"
#include "train/config/config_keys.h"
#include "train/config/nearest_name.h"
#include "train/config/ngram_tables.h"
#include "train/config/removed_keys.h"
#include "train/config/source_tables.h"
#include "train/config/whole_numbers.h"

namespace vqlm {
namespace {

using config_keys::Choice;
using config_keys::Field;
using config_keys::Key;
using config_keys::Overloaded;
using config_keys::Range;
using config_keys::toml_string;
using Tables = std::vector<NgramTable>;
using Numbers = std::vector<std::int64_t>;
using Value = std::variant<bool, std::int64_t, double, std::string, Tables, Numbers>;

const Key& find_key(std::string_view full_name, std::string_view origin) {
  std::vector<std::string> names;
  for (const Key& key : config_keys::all()) {
    if (key.full_name() == full_name) return key;
    names.push_back(key.full_name());
  }
  throw UsageError(fmt::format("{}: unknown key {}; the nearest known key is {}", origin, full_name,
                               nearest_name(full_name, names)));
}

std::string text_of(const Value& value) {
  return std::visit(Overloaded{[](const std::string& text) { return toml_string(text); },
                               [](bool flag) { return std::string(flag ? "true" : "false"); },
                               [](const Tables& tables) { return ngram_tables_text(tables); },
                               [](const Numbers& numbers) { return whole_numbers_text(numbers); },
                               [](auto number) { return fmt::format("{}", number); }},
                    value);
}

[[noreturn]] void refuse(const Key& key, const Value& value, std::string_view origin, const std::string& must_be) {
  throw UsageError(fmt::format("{}: {} = {}: {}", origin, key.full_name(), text_of(value), must_be));
}

void check_range(const Key& key, double number, const Value& value, std::string_view origin) {
  const Range& range = key.range;
  const bool above = range.low_end == Range::Low::included ? number >= range.low : number > range.low;
  if (above && number <= range.high) return;  // false for NaN
  refuse(key, value, origin,
         fmt::format("out of range, choose {} {} to {}", range.low_end == Range::Low::included ? "from" : "above",
                     range.low, range.high));
}

std::int64_t checked_integer(const Key& key, const Value& value, std::string_view origin) {
  const auto* number = std::get_if<std::int64_t>(&value);
  if (number == nullptr) refuse(key, value, origin, "must be a whole number");
  check_range(key, static_cast<double>(*number), value, origin);
  return *number;
}

float checked_float(const Key& key, const Value& value, std::string_view origin) {
  double number = 0;
  if (const auto* real = std::get_if<double>(&value)) {
    number = *real;
  } else if (const auto* whole = std::get_if<std::int64_t>(&value)) {
    number = static_cast<double>(*whole);
  } else {
    refuse(key, value, origin, "must be a number");
  }
  check_range(key, number, value, origin);
  if (number != 0 && static_cast<float>(number) == 0)
    refuse(key, value, origin, "is 0 as a 32-bit float; choose 1e-38");
  return static_cast<float>(number);
}

int checked_choice(const Key& key, const Choice& choice, const Value& value, std::string_view origin) {
  const auto* word = std::get_if<std::string>(&value);
  for (std::size_t i = 0; word != nullptr && i < choice.words.size(); ++i) {
    if (*word == choice.words[i]) return static_cast<int>(i);
  }
  refuse(key, value, origin, fmt::format("choose one of {}", fmt::join(choice.words, ", ")));
}

void assign(Config& config, const Key& key, const Value& value, std::string_view origin) {
  std::visit(
      Overloaded{
          [&](const Field<bool>& field) {
            if (!std::holds_alternative<bool>(value)) refuse(key, value, origin, "must be true or false");
            field.set(config, std::get<bool>(value));
          },
          [&](const Field<std::string>& field) {
            if (!std::holds_alternative<std::string>(value)) refuse(key, value, origin, "must be a string");
            field.set(config, std::get<std::string>(value));
          },
          [&](const Field<Tables>& field) { field.set(config, std::get<Tables>(value)); },
          [&](const Field<Numbers>& field) { field.set(config, std::get<Numbers>(value)); },
          [&](const Field<int>& field) { field.set(config, static_cast<int>(checked_integer(key, value, origin))); },
          [&](const Field<std::int64_t>& field) { field.set(config, checked_integer(key, value, origin)); },
          [&](const Field<float>& field) { field.set(config, checked_float(key, value, origin)); },
          [&](const Choice& choice) { choice.set(config, checked_choice(key, choice, value, origin)); },
      },
      key.member);
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T number{};
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// An override's text has no type of its own: numbers and true/false become what they look like unless the
/// key holds a string, so "--set run.name=7" works without quotes.
Value parse_override(const Key& key, std::string text) {
  if (std::holds_alternative<Field<Tables>>(key.member)) return read_ngram_tables(text, "--set");
  if (std::holds_alternative<Field<Numbers>>(key.member)) return read_whole_numbers(text, key.full_name(), "--set");
  if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front()) {
    return text.substr(1, text.size() - 2);
  }
  if (std::holds_alternative<Field<std::string>>(key.member)) return text;
  if (text == "true" || text == "false") return text == "true";
  if (const auto whole = parse_number<std::int64_t>(text)) return *whole;
  if (const auto real = parse_number<double>(text)) return *real;
  return text;
}

/// What one source, the file or the command line, says of a key.
struct Assignment {
  const Key* key;
  Value value;
  std::string origin;
  enum class Source { file, command_line } source;
};
using Source = Assignment::Source;

struct Sayings {
  std::string file;
  std::vector<Assignment> assignments;
  std::vector<RemovedKey> removed;
  source_tables::Sayings sources;
};

void read_override(Sayings& said, const std::string& override_text) {
  const std::size_t equals = override_text.find('=');
  if (equals == std::string::npos) {
    throw UsageError(
        fmt::format("--set {}: write section.key=value, for example --set train.steps=100", override_text));
  }
  const std::string name = override_text.substr(0, equals);
  const std::string value = override_text.substr(equals + 1);
  if (is_removed_key(name)) {
    said.removed.push_back({name, value, "--set"});
    return;
  }
  if (source_tables::read_override(said.sources, name, value)) return;
  const Key& key = find_key(renamed_key(name), "--set");
  said.assignments.push_back({&key, parse_override(key, value), "--set", Source::command_line});
}

Value toml_value(const Key& key, const toml::node& node, std::string_view origin) {
  if (std::holds_alternative<Field<Tables>>(key.member)) return read_ngram_tables(node, origin);
  if (std::holds_alternative<Field<Numbers>>(key.member)) return read_whole_numbers(node, key.full_name(), origin);
  if (const auto value = node.value_exact<bool>()) return *value;
  if (const auto value = node.value_exact<std::int64_t>()) return *value;
  if (const auto value = node.value_exact<double>()) return *value;
  if (const auto value = node.value_exact<std::string>()) return *value;
  throw UsageError(fmt::format("{}: {} must be a single value, not a list, table or date", origin, key.full_name()));
}

std::string text_of_node(const toml::node& node) {
  std::ostringstream text;
  node.visit([&](const auto& value) { text << value; });
  return text.str();
}

void read_file(Sayings& said, const std::filesystem::path& path) {
  said.file = path.string();
  std::ifstream file(path);
  if (!file) throw Error(fmt::format("{}: cannot read the configuration; check the path of --config", path.string()));
  toml::table root;
  try {
    root = toml::parse(file, path.string());
  } catch (const toml::parse_error& error) {
    throw UsageError(
        fmt::format("{}:{}: not valid TOML: {}", path.string(), error.source().begin.line, error.description()));
  }
  for (const auto& [section, section_node] : root) {
    const auto origin_of = [&](const toml::node& node) {
      return fmt::format("{}:{}", path.string(), node.source().begin.line);
    };
    const toml::table* section_table = section_node.as_table();
    if (section_table == nullptr) {
      find_key(section.str(), origin_of(section_node));  // throws, but for a quoted "section.key"
      throw UsageError(fmt::format("{}: \"{}\" in quotes is no section and key; write it without quotes",
                                   origin_of(section_node), section.str()));
    }
    for (const auto& [name, node] : *section_table) {
      const std::string origin = origin_of(node);
      const std::string full_name = fmt::format("{}.{}", section.str(), name.str());
      if (is_removed_key(full_name)) {
        said.removed.push_back({full_name, text_of_node(node), origin});
        continue;
      }
      if (source_tables::read(said.sources, full_name, node, path.string())) continue;
      const Key& key = find_key(renamed_key(full_name), origin);
      said.assignments.push_back({&key, toml_value(key, node, origin), origin, Source::file});
    }
  }
}

[[noreturn]] void refuse_left_out(const Assignment& said, const config_keys::Needs& needs, const Config& config) {
  const Key& decider = find_key(needs.key, said.origin);
  throw UsageError(fmt::format("{}: {} = {} with {} = {}: set {} = \"{}\", or leave {} out", said.origin,
                               said.key->full_name(), text_of(said.value), needs.key, decider.text(config), needs.key,
                               needs.words[0], said.key->full_name()));
}

/// Choices that decide which keys there are come first, whatever their place.
void assign_choices(Config& config, const std::vector<Assignment>& assignments) {
  for (const Key& key : config_keys::all()) {
    if (!config_keys::decides(key)) continue;
    for (const Assignment& said : assignments) {
      if (said.key == &key && key.missing(config) == nullptr) assign(config, key, said.value, said.origin);
    }
  }
}

/// Whether the command line made a choice that leaves out what the file says.
bool overruled(const Assignment& said, const config_keys::Needs& needs, const std::vector<Assignment>& assignments) {
  return said.source == Source::file && std::ranges::any_of(assignments, [&](const Assignment& other) {
           return other.source == Source::command_line && other.key->full_name() == needs.key;
         });
}

enum class LeftOut { refused, passed_over };
constexpr std::string_view earlier_versions = "earlier versions";  // the origin of what they meant by silence

/// The command line's word on what is trained or held out overrules the file's, in whichever of its two forms that is.
void overrule_sources(const Sayings& said, DataSection& data) {
  source_tables::Sayings sources = said.sources;
  const auto named = [&](std::string_view key) {
    return std::ranges::any_of(said.assignments, [&](const Assignment& each) {
      return each.source == Source::command_line && each.key->full_name() == key && text_of(each.value) != "\"\"";
    });
  };
  if (named("data.train")) sources.mix.reset();
  if (named("data.heldout")) sources.heldout.reset();
  if (!sources.mix_overrides.empty() && !named("data.train")) data.train.clear();
  if (!sources.heldout_overrides.empty() && !named("data.heldout")) data.heldout.clear();
  source_tables::apply(sources, data);
}

Config configured(Config config, const Sayings& said, LeftOut left_out) {
  assign_choices(config, said.assignments);
  std::vector<std::string> dropped;
  for (const Assignment& each : said.assignments) {
    const config_keys::Needs* const needs = each.key->missing(config);
    if (needs == nullptr) {
      if (!config_keys::decides(*each.key)) assign(config, *each.key, each.value, each.origin);
    } else if (overruled(each, *needs, said.assignments)) {
      if (each.origin != earlier_versions)
        dropped.push_back(fmt::format("{} = {}", each.key->full_name(), text_of(each.value)));
    } else if (left_out == LeftOut::refused || each.source == Source::command_line) {
      refuse_left_out(each, *needs, config);
    }
  }
  if (!dropped.empty())
    log::info("{}: keys that --set leaves out are passed over: {}", said.file, fmt::join(dropped, ", "));
  // Earlier versions named the published method so.
  if (auto* head = std::get_if<VqHeadConfig>(&config.head)) {
    if (!head->by_embedding() && head->groups() == 0) head->members = NoMembersConfig{};
  }
  check_removed_keys(said.removed, config);
  overrule_sources(said, config.data);
  return config;
}

/// Whether a file lies where runs and checkpoints keep theirs: an earlier version may have written it.
bool is_of_a_run(const std::filesystem::path& path) {
  if (path.filename() != "config.toml") return false;
  return std::ranges::any_of(std::array{"metrics.jsonl", "checkpoint.h5"},
                             [&](const char* beside) { return std::filesystem::exists(path.parent_path() / beside); });
}

}  // namespace

Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  const Config defaults;
  return load_config(path, overrides, defaults);
}

Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides, const Config& base) {
  if (is_of_a_run(path)) return load_saved_config(path, overrides);
  Sayings said;
  if (!path.empty()) read_file(said, path);
  for (const std::string& text : overrides) read_override(said, text);
  return configured(base, said, LeftOut::refused);
}

Config load_saved_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  Sayings said;
  read_file(said, path);
  const auto says = [&](std::string_view key, const Value& value) {
    return std::ranges::any_of(
        said.assignments, [&](const Assignment& each) { return each.key->full_name() == key && each.value == value; });
  };
  const bool not_vq = says("head.kind", "dense") || says("head.kind", "low_rank") || says("head.kind", "adaptive");
  for (const std::string& text : overrides) read_override(said, text);
  const bool other_members =
      std::ranges::any_of(overrides, [](const std::string& text) { return text.starts_with("head.members="); });
  std::vector<Assignment> earlier;  // what the file may say otherwise
  const auto meant = [&](const char* key, Value value) {
    earlier.push_back(
        {&find_key(key, earlier_versions), std::move(value), std::string(earlier_versions), Source::file});
  };
  meant("optim.embedding_lr_ratio", 1.0);
  meant("data.counted_text", "all");
  if (!not_vq) {  // a head that only --set names has the defaults of this version
    meant("head.members", "codes");
    meant("head.input_codes", false);
    if (!other_members) meant("head.member_mean", false);
  }
  said.assignments.insert(said.assignments.begin(), earlier.begin(), earlier.end());
  const Config defaults;
  return configured(defaults, said, LeftOut::passed_over);
}

}  // namespace vqlm
