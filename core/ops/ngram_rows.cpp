#include "core/ops/ngram_rows.h"

namespace vqlm {

std::int32_t ngram_row_at(const std::int32_t* last, std::int64_t there, int order, int table, std::int64_t table_rows) {
  if (there < order) return -1;
  std::uint64_t hash = ngram_start(table);
  for (const std::int32_t* id = last - order + 1; id <= last; ++id) {
    if (*id < 0) return -1;
    hash = ngram_next(hash, *id);
  }
  return ngram_row(hash, table_rows);
}

void NgramRows::check(DType /*a*/) const {
  check_dtype(DType::i32, {rows, tokens});
  VQLM_ASSERT(tokens.rank() == 2 && rows.numel() == tokens.numel());
  VQLM_ASSERT(order >= 1 && table >= 0 && table_rows >= 1 && table_rows < (std::int64_t{1} << 31));
  const std::int64_t end = past + tokens.extent(1);
  if (history) {
    check_dtype(DType::i32, {history});
    VQLM_ASSERT(history.rank() == 2 && history.extent(0) == tokens.extent(0) && end <= history.extent(1));
  } else {
    VQLM_ASSERT(past == 0);
  }
  if (documents) {
    check_dtype(DType::i32, {documents});
    VQLM_ASSERT(documents.rank() == 3 && documents.extent(1) == tokens.extent(0) && end <= documents.extent(2));
  }
}

OpCost NgramRows::cost() const {
  const auto bytes = static_cast<double>(tokens.bytes());
  return {.bytes_read = (documents ? 2 : 1) * bytes, .bytes_written = (history ? 2 : 1) * bytes};
}

}  // namespace vqlm
