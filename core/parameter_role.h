// What a parameter is for.
#pragma once

namespace vqlm {

/// Learning rate and decay go by it: the optimizer's settings say how.
enum class ParameterRole {
  block,      // of attention and MLP
  embedding,  // the table of the input, whatever else reads it
  head,       // a dense head's matrix, and the biases of any head
  table,      // a VQ head's codebooks
  gain,       // of norms
};

}  // namespace vqlm
