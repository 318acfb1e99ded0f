// input.tables in configuration files: [{order = 2, rows = 8192}, ...].
#pragma once

#include <toml++/toml.h>

#include <string>
#include <string_view>
#include <vector>

#include "core/model_config.h"

namespace vqlm {

/// Throws UsageError naming `origin` for what is no list of such tables, an order or number of rows out of range, or too many.
std::vector<NgramTable> read_ngram_tables(const toml::node& node, std::string_view origin);
/// The same of a command line's value.
std::vector<NgramTable> read_ngram_tables(const std::string& text, std::string_view origin);
/// As TOML; reading it gives the same tables.
std::string ngram_tables_text(const std::vector<NgramTable>& tables);

}  // namespace vqlm
