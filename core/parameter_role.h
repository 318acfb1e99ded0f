// What a parameter is for.
#pragma once

#include <array>
#include <string_view>

namespace vqlm {

/// Learning rate and decay go by it: the optimizer's settings say how.
enum class ParameterRole {
  block,      // of attention and MLP
  embedding,  // the table of the input, whatever else reads it
  head,       // a dense or low-rank head's matrices, and the biases of any head
  table,      // a VQ head's codebooks
  input_table,  // of n-grams
  gain,       // of norms
};

inline constexpr std::array parameter_roles = {ParameterRole::block, ParameterRole::embedding, ParameterRole::head,
                                        ParameterRole::table, ParameterRole::input_table, ParameterRole::gain};

/// As configurations and logs call the parameters of a role.
constexpr std::string_view name_of(ParameterRole role) {
  switch (role) {
    case ParameterRole::block:
      return "blocks";
    case ParameterRole::embedding:
      return "embedding";
    case ParameterRole::head:
      return "head";
    case ParameterRole::table:
      return "tables";
    case ParameterRole::input_table:
      return "input tables";
    case ParameterRole::gain:
      return "gains";
  }
  return "?";
}

}  // namespace vqlm
