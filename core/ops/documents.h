// Where the documents of sequences begin and end, from their tokens.
#pragma once

#include "core/ops/op.h"

namespace vqlm {

/// documents (2, B, C) i32, for tokens (B, T) i32 at positions [past, past + T), past + T <= C: [0] gets the first position of
/// each position's document, [1] the first behind it, or past + T where it does not end there. A document ends with the token
/// `end_of_text`, which is its last. At past = 0 one begins; at later ones [0] is read at past, which the call before wrote:
/// each writes [0] at past + T, too, where C is longer.
struct FindDocuments {
  static constexpr std::string_view name = "find_documents";
  Tensor documents;
  Tensor tokens;
  std::int32_t end_of_text;
  std::int64_t past = 0;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
