// Rows of the n-gram tables at the input, by a hash of a token and those before it.
#pragma once

#include <cstdint>

#include "core/ops/op.h"

namespace vqlm {

/// The hash that docs/inputs.md defines, of one n-gram: starts with the table's number, takes ids from the oldest on, and has a
/// row. Every place that computes it (both back ends, modeling_vqlm.py) agrees to the bit.
constexpr std::uint64_t ngram_start(int table) {
  return static_cast<std::uint64_t>(table) + 1;
}
constexpr std::uint64_t ngram_next(std::uint64_t hash, std::int32_t id) {
  hash = (hash ^ static_cast<std::uint32_t>(id)) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 32);
}
/// In [0, table_rows), table_rows below 2^31: the hash's 31 high bits.
constexpr std::int32_t ngram_row(std::uint64_t hash, std::int64_t table_rows) {
  return static_cast<std::int32_t>(static_cast<std::int64_t>(hash >> 33) % table_rows);
}

/// The row for the last `order` tokens up to the one at `last`; `there` tokens may be read, that one and those before it. -1 where
/// fewer than `order` are there, or one of them is negative.
std::int32_t ngram_row_at(const std::int32_t* last, std::int64_t there, int order, int table, std::int64_t table_rows);

/// rows (B, T) i32 overwritten: for each of tokens (B, T) i32 at positions [past, past + T) the row of table number `table`,
/// which has table_rows, for the last `order` tokens, itself among them; -1 where fewer are there. Those before `past` are read
/// from history (B, C) i32, past + T <= C, which gets these; without it past is 0. With documents (2, B, C or T), as
/// FindDocuments writes them, an n-gram does not begin before its last token's document. A negative id is no token.
struct NgramRows {
  static constexpr std::string_view name = "ngram_rows";
  Tensor rows;
  Tensor tokens;
  Tensor history = {};
  Tensor documents = {};
  std::int64_t past = 0;
  int order;
  int table;
  std::int64_t table_rows;

  void check(DType a) const;
  OpCost cost() const;
};

}  // namespace vqlm
