// The known name closest to a mistyped one, for error messages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vqlm {

/// The fewest insertions, deletions, substitutions and swaps of neighbours that turn a into b (optimal string
/// alignment distance).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate at the smallest distance, the first of equals; empty where there is no candidate.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace vqlm
