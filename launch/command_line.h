// What CLI11 leaves to us: mistyped commands and options answered with the nearest known one.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace vqlm {

/// Looks at the words before CLI11 does: throws UsageError for an unknown command or long option, naming the nearest.
/// arguments: without the program's name.
void check_names(const CLI::App& app, const std::vector<std::string>& arguments);

}  // namespace vqlm
