// How much text a code map was made from, beside the text that a run trains on: more of it is an advantage over a dense head.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/model/head/code_map.h"

namespace vqlm {

/// CodeMap::counted_tokens of maps of earlier versions, which tell it in their provenance alone; 0 where they do not.
std::int64_t counted_in_provenance(const std::string& provenance);

/// How many times the tokens that are trained on a map saw; none where that is not more than they are, or either is not
/// known (0).
std::optional<double> times_trained(std::int64_t counted_tokens, double trained_tokens);

/// ", 3.7 times the tokens that are trained on"; empty where times_trained() has none.
std::string times_trained_text(std::int64_t counted_tokens, double trained_tokens);

}  // namespace vqlm
