// The forward pass of one attention head, shared by attention_forward and attention_cached.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cpu/sgemm.h"

namespace vqlm::cpu {

// Query rows and key columns of a tile of scores: 64 KiB, so that the two tiles of backward and the keys' side stay in
// a second-level cache. 128 rows make the products 10 % faster and compute 10 % more scores above the diagonal.
constexpr std::int64_t query_block = 64;
constexpr std::int64_t key_tile = 256;

/// A block of query rows against a tile of keys, by positions in the sequence.
struct AttentionTile {
  std::int64_t query_begin, queries;
  std::int64_t key_begin, keys;

  /// Keys of the tile that query row r of the block may see, 0 where the tile is in its future.
  std::int64_t visible(std::int64_t r) const {
    return std::clamp<std::int64_t>(query_begin + r + 1 - key_begin, 0, keys);
  }
};

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
};

/// Causal softmax(q k^T / sqrt(head_dim)) v. scores: query_block x key_tile floats to work in.
void attend(const AttentionHead& head, float* scores);

}  // namespace vqlm::cpu
