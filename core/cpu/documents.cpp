// Documents of sequences: two scans of each.
#include "core/ops/documents.h"

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

namespace vqlm::cpu {

template <>
void run(const FindDocuments& op) {
  const std::int64_t batch = op.tokens.extent(0), length = op.tokens.extent(1), capacity = op.documents.extent(2);
  std::int32_t* const data = op.documents.i32();
  const std::int32_t* const tokens = op.tokens.i32();
  parallel_blocks(batch, rows_per_block(3 * length), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      std::int32_t* const begins = data + b * capacity;
      std::int32_t* const ends = data + (batch + b) * capacity;
      const std::int32_t* const row = tokens + b * length;
      auto begin = op.past == 0 ? 0 : begins[op.past];
      for (std::int64_t t = 0; t < length; ++t) {
        begins[op.past + t] = begin;
        if (row[t] == op.end_of_text) begin = static_cast<std::int32_t>(op.past + t + 1);
      }
      if (op.past + length < capacity) begins[op.past + length] = begin;
      auto end = static_cast<std::int32_t>(op.past + length);
      for (std::int64_t t = length; t-- > 0;) {
        if (row[t] == op.end_of_text) end = static_cast<std::int32_t>(op.past + t + 1);
        ends[op.past + t] = end;
      }
    }
  });
}

}  // namespace vqlm::cpu
