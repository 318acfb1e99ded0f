// What CLI11 leaves to us: mistyped commands and options answered with the nearest known one; options of several commands.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/config/config.h"

namespace vqlm {

/// Looks at the words before CLI11 does: throws UsageError for an unknown command or long option, naming the nearest.
/// arguments: without the program's name.
void check_names(const CLI::App& app, const std::vector<std::string>& arguments);

/// --device cpu|cuda|auto; without it `device` stays as it is, and `otherwise` says what that means.
void add_device_option(CLI::App& command, std::optional<DeviceKind>& device, const std::string& otherwise);
/// The same where a GPU is taken if there is one.
void add_device_option(CLI::App& command, DeviceKind& device);

}  // namespace vqlm
