#include "launch/command_line.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <functional>
#include <map>

#include "core/error.h"
#include "train/config/nearest_name.h"

namespace vqlm {
namespace {

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands(nullptr)) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> long_options(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

void add_device(CLI::App& command, const std::function<void(DeviceKind)>& set, const std::string& otherwise) {
  const std::map<std::string, DeviceKind> kinds{
      {"cpu", DeviceKind::cpu}, {"cuda", DeviceKind::cuda}, {"auto", DeviceKind::automatic}};
  command
      .add_option_function<std::string>(
          "--device", [set, kinds](const std::string& name) { set(kinds.at(name)); },
          "cpu, cuda, or auto: a GPU where there is one (default: " + otherwise + ")")
      ->check(CLI::IsMember({"cpu", "cuda", "auto"}));
}

}  // namespace

void check_names(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* command = &app;  // the innermost one that the words have reached
  std::string path = app.get_name();
  for (const std::string& word : arguments) {
    if (word == "--") return;
    if (word.starts_with("--")) {
      const std::string name = word.substr(0, word.find('='));
      const std::vector<std::string> known = long_options(*command);
      if (!contains(known, name)) {
        std::string key = name.substr(2);
        std::ranges::replace(key, '-', '_');
        if (const auto keys = keys_named(key); contains(known, "--set") && !keys.empty()) {
          throw UsageError(fmt::format("{}: unknown option {}; a key of the configuration is set by --set {}=VALUE",
                                       path, name, fmt::join(keys, "=VALUE or --set ")));
        }
        throw UsageError(fmt::format("{}: unknown option {}; the nearest is {} (see {} --help)", path, name,
                                     nearest_name(name, known), path));
      }
      continue;
    }
    const std::vector<std::string> known = command_names(*command);
    if (word.starts_with("-") || known.empty()) continue;
    if (contains(known, word)) {
      command = command->get_subcommand(word);
      path += " " + word;
    } else if (command->get_require_subcommand_min() > 0) {
      throw UsageError(fmt::format("{}: unknown command {}; the nearest is {} (see {} --help)", path, word,
                                   nearest_name(word, known), path));
    }
  }
}

void add_device_option(CLI::App& command, std::optional<DeviceKind>& device, const std::string& otherwise) {
  add_device(
      command, [&device](DeviceKind kind) { device = kind; }, otherwise);
}

void add_device_option(CLI::App& command, DeviceKind& device) {
  add_device(
      command, [&device](DeviceKind kind) { device = kind; }, "auto");
}

}  // namespace vqlm
