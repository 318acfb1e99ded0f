#include "train/engine/future_targets.h"

#include "core/error.h"

namespace vqlm {

void write_future_targets(std::span<std::int32_t> out, std::span<const std::int32_t> tokens,
                          std::span<const std::int32_t> targets, const BatchShape& batch, std::int32_t document_end) {
  const auto length = static_cast<std::size_t>(batch.seq_len), rows = tokens.size();
  VQLM_ASSERT(rows == static_cast<std::size_t>(batch.rows()) && targets.size() == rows && out.size() % rows == 0);
  const std::size_t heads = out.size() / rows;
  for (std::size_t first = 0; first < rows; first += length) {
    std::size_t end = length;  // where t's document ends, its last token; T where the sequence ends before
    for (std::size_t t = length; t-- > 0;) {
      if (document_end >= 0 && tokens[first + t] == document_end) end = t;
      for (std::size_t j = 1; j <= heads; ++j) {
        const std::size_t place = t + j;
        const bool has_target = place < length && place <= end;
        out[(j - 1) * rows + first + t] = has_target ? targets[first + place] : -1;
      }
    }
  }
}

}  // namespace vqlm
