// Rows of n-gram tables.
#include "core/ops/ngram_rows.h"

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

namespace vqlm::cpu {
namespace {

/// The tokens of one sequence, at positions that count from its beginning.
struct Sequence {
  const std::int32_t* tokens;   // from position `past` on
  const std::int32_t* history;  // from position 0 on
  std::int64_t past;

  std::int32_t at(std::int64_t position) const {
    return position >= past ? tokens[position - past] : history[position];
  }
};

std::int32_t row_at(const Sequence& sequence, std::int64_t position, std::int64_t begin, const NgramRows& op) {
  const std::int64_t first = position - op.order + 1;
  if (first < begin) return -1;
  std::uint64_t hash = ngram_start(op.table);
  for (std::int64_t p = first; p <= position; ++p) {
    const std::int32_t id = sequence.at(p);
    if (id < 0) return -1;
    hash = ngram_next(hash, id);
  }
  return ngram_row(hash, op.table_rows);
}

}  // namespace

template <>
void run(const NgramRows& op) {
  const std::int64_t batch = op.tokens.extent(0), length = op.tokens.extent(1);
  const std::int64_t capacity = op.history ? op.history.extent(1) : 0;
  std::int32_t* const history = op.history ? op.history.i32() : nullptr;
  parallel_blocks(batch, rows_per_block(4 * op.order * length), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      const std::int32_t* const tokens = op.tokens.i32() + b * length;
      const Sequence sequence{tokens, history + b * capacity, op.past};
      const std::int32_t* const begins = op.documents ? op.documents.i32() + b * op.documents.extent(2) : nullptr;
      for (std::int64_t t = 0; t < length; ++t) {
        const std::int64_t position = op.past + t;
        op.rows.i32()[b * length + t] = row_at(sequence, position, begins != nullptr ? begins[position] : 0, op);
        if (history != nullptr) history[b * capacity + position] = tokens[t];
      }
    }
  });
}

}  // namespace vqlm::cpu
