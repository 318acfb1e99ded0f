// What heads for later tokens have to predict.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/batch_shape.h"

namespace vqlm {

/// Writes out (F, N), F = out.size() / N: row j - 1 has for position t of a sequence what the output head predicts at position
/// t + j of the same sequence, so the token t + 1 + j; -1 where there is none, because the sequence ends before (t + j >= T), or,
/// with document_end >= 0, because a document does: one of the tokens t ... t + j - 1 is `document_end`, behind which attention
/// starts anew. tokens, targets: (B, T) each, of `batch`.
void write_future_targets(std::span<std::int32_t> out, std::span<const std::int32_t> tokens,
                          std::span<const std::int32_t> targets, const BatchShape& batch, std::int32_t document_end);

}  // namespace vqlm
