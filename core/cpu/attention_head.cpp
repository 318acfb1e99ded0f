#include "core/cpu/attention_head.h"

#include <cmath>
#include <limits>

#include "core/cpu/row_kernels.h"

namespace vqlm::cpu {
namespace {

/// The running softmax of a block of queries.
struct RunningSoftmax {
  float maximum[query_block];
  float sum[query_block];
};

/// Turns a tile of raw scores into probabilities relative to the running maximum, and rescales what the earlier tiles
/// left in out where the maximum grew. The first tile starts the softmax; rows that see nothing of it wait with none.
void update_softmax(RunningSoftmax& softmax, float* scores, const AttentionHead& head, float* out,
                    const AttentionTile& tile, bool first) {
  const float scale = head.scale;
  for (std::int64_t r = 0; r < tile.queries; ++r) {
    float* const row = scores + r * tile.keys;
    const std::int64_t position = tile.query_begin + r;
    const AttentionTile::Seen seen = tile.seen(position, head.sight.first_key(position));
    float* const keys = row + seen.begin;
    const std::int64_t visible = seen.count();
    if (first) {
      softmax.maximum[r] = -std::numeric_limits<float>::infinity();
      softmax.sum[r] = 0;
    }
    if (visible > 0) {
      const float top = scale * row_maximum(keys, visible);
      if (first) {
        softmax.maximum[r] = top;
        softmax.sum[r] = row_exp(keys, scale, top, visible);
      } else {
        if (top > softmax.maximum[r]) {
          const float ratio = std::exp(softmax.maximum[r] - top);
          row_scale(out + r * head.out_stride, ratio, head.head_dim);
          softmax.sum[r] *= ratio;
          softmax.maximum[r] = top;
        }
        softmax.sum[r] += row_exp(keys, scale, softmax.maximum[r], visible);
      }
    }
    std::fill(row, keys, 0.0f);
    std::fill(keys + visible, row + tile.keys, 0.0f);
  }
}

}  // namespace

void attend(const AttentionHead& head, float* scores) {
  RunningSoftmax softmax;
  for (std::int64_t begin = 0; begin < head.queries; begin += query_block) {
    const std::int64_t queries = std::min(query_block, head.queries - begin);
    const std::int64_t position = head.past + begin;
    const MatrixView q{head.q.data + begin * head.q.stride, head.q.stride};
    float* const out = head.out + begin * head.out_stride;
    const std::int64_t first_tile = head.sight.first_key(position) / key_tile * key_tile;
    for (std::int64_t key_begin = first_tile; key_begin < position + queries; key_begin += key_tile) {
      const AttentionTile tile = attention_tile(position, queries, key_begin);
      const MatrixView k{head.k.data + key_begin * head.k.stride, head.k.stride};
      const MatrixView v{head.v.data + key_begin * head.v.stride, head.v.stride};
      sgemm(Transpose::no, Transpose::yes, queries, tile.keys, head.head_dim, 1.0f, q, k, 0.0f, scores, tile.keys);
      update_softmax(softmax, scores, head, out, tile, key_begin == first_tile);
      sgemm(Transpose::no, Transpose::no, queries, head.head_dim, tile.keys, 1.0f, {scores, tile.keys}, v,
            key_begin == first_tile ? 0.0f : 1.0f, out, head.out_stride);
    }
    for (std::int64_t r = 0; r < queries; ++r) {
      row_scale(out + r * head.out_stride, 1.0f / softmax.sum[r], head.head_dim);
      if (head.lse != nullptr) head.lse[begin + r] = softmax.maximum[r] + std::log(softmax.sum[r]);
    }
  }
}

}  // namespace vqlm::cpu
