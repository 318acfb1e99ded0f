// The forward pass of one attention head, shared by attention_forward and attention_cached.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cpu/sgemm.h"
#include "core/ops/attention.h"

namespace vqlm::cpu {

// Query rows and key columns of a tile of scores: 64 KiB, so that the two tiles of backward and the keys' side stay in
// a second-level cache. 128 rows make the products 10 % faster and compute 10 % more scores above the diagonal.
constexpr std::int64_t query_block = 64;
constexpr std::int64_t key_tile = 256;

/// A block of query rows against a tile of keys, by positions in the sequence.
struct AttentionTile {
  std::int64_t query_begin, queries;
  std::int64_t key_begin, keys;

  /// Keys [begin, end) of the tile that a query at `position` sees, of which first_key is the first; none where end <= begin.
  struct Seen {
    std::int64_t begin, end;
    std::int64_t count() const { return std::max<std::int64_t>(0, end - begin); }
  };
  Seen seen(std::int64_t position, std::int64_t first_key) const {
    return {std::clamp<std::int64_t>(first_key - key_begin, 0, keys),
            std::clamp<std::int64_t>(position + 1 - key_begin, 0, keys)};
  }
};

/// How far back the rows of one sequence see, and how far ahead a key is seen.
struct Sight {
  const AttentionShape* shape;
  const std::int32_t *document_begin = nullptr, *document_end = nullptr;  // of each position, or null

  std::int64_t first_key(std::int64_t position) const {
    const std::int64_t key = shape->first_key(position);
    return document_begin == nullptr ? key : std::max<std::int64_t>(key, document_begin[position]);
  }
  std::int64_t query_end(std::int64_t key, std::int64_t end) const {
    return shape->query_end(key, document_end == nullptr ? end : std::min<std::int64_t>(end, document_end[key]));
  }
};
/// Of sequence b; documents as AttentionForward's.
inline Sight sight_of(const AttentionShape& shape, const Tensor& documents, std::int64_t b) {
  if (!documents) return {&shape};
  const std::int32_t* const begin = documents.i32() + b * documents.extent(2);
  return {&shape, begin, begin + shape.batch * documents.extent(2)};
}

/// Keys [key_begin, + key_tile) against a query block, cut behind the block's last row.
inline AttentionTile attention_tile(std::int64_t query_begin, std::int64_t queries, std::int64_t key_begin) {
  return {query_begin, queries, key_begin, std::min(key_tile, query_begin + queries - key_begin)};
}

/// One head of one sequence: rows r of q stand at positions past + r.
struct AttentionHead {
  MatrixView q;             // (queries, head_dim)
  MatrixView k, v;          // (past + queries, head_dim)
  float* out;               // (queries, head_dim), overwritten
  std::int64_t out_stride;  // floats from one row of out to the next
  float* lse;               // (queries) overwritten, or null
  std::int64_t queries, past;
  std::int64_t head_dim;
  float scale;
  Sight sight;
};

/// Causal softmax(scale * q k^T) v of the keys in sight. scores: query_block x key_tile floats to work in.
void attend(const AttentionHead& head, float* scores);

}  // namespace vqlm::cpu
