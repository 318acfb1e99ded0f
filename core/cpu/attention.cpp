// Causal attention in tiles (FlashAttention-2, arXiv 2307.08691): a block of queries meets a tile of keys, the softmax
// is carried along as a running maximum and sum, and tiles above the diagonal are never computed. All products read
// and write the fused (B, T, row) layout in place: transposing a head's keys first gained 1 to 4 % of forward at T = 512
// (8 heads of 64), 9 % at T = 2048 and nothing below.
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "core/cpu/attention_head.h"
#include "core/cpu/ops.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/cpu/sgemm.h"
#include "core/ops/attention.h"

namespace vqlm::cpu {
namespace {

/// Strides and sizes of one call; element (t, i) of a head is at head + t * row + i.
struct Layout {
  explicit Layout(const AttentionShape& shape)
      : seq_len(shape.seq_len),
        head_dim(shape.head_dim),
        row(shape.row()),
        out_row(static_cast<std::int64_t>(shape.heads) * shape.head_dim),
        group(shape.heads / shape.kv_heads),
        key_offset(out_row),
        value_offset(out_row + static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim),
        scale(shape.score_scale()) {}

  std::int64_t seq_len, head_dim;
  std::int64_t row, out_row;  // floats from one position to the next in qkv and in out
  int group;                  // query heads that share a key/value head
  std::int64_t key_offset, value_offset;
  float scale;
};

/// Pointers to one head of one sequence in backward; q, k, v and their gradients have stride layout.row, dout
/// layout.out_row.
struct BackwardHead {
  const float *q, *k, *v, *dout;
  const float *lse, *delta;  // (T)
  float *dq, *dk, *dv;
  Sight sight;
};

/// Adds one tile's part to dq, dk and dv. scores and dscores hold query_block x key_tile floats.
void backward_tile(const BackwardHead& head, const AttentionTile& tile, const Layout& layout, float* scores,
                   float* dscores) {
  const std::int64_t query_at = tile.query_begin * layout.row, key_at = tile.key_begin * layout.row;
  const MatrixView q{head.q + query_at, layout.row}, k{head.k + key_at, layout.row}, v{head.v + key_at, layout.row};
  const MatrixView dout{head.dout + tile.query_begin * layout.out_row, layout.out_row};
  sgemm(Transpose::no, Transpose::yes, tile.queries, tile.keys, layout.head_dim, 1.0f, q, k, 0.0f, scores, tile.keys);
  sgemm(Transpose::no, Transpose::yes, tile.queries, tile.keys, layout.head_dim, 1.0f, dout, v, 0.0f, dscores,
        tile.keys);
  for (std::int64_t r = 0; r < tile.queries; ++r) {
    float *const row = scores + r * tile.keys, *const drow = dscores + r * tile.keys;
    const std::int64_t t = tile.query_begin + r;
    const auto [begin, end] = tile.seen(t, head.sight.first_key(t));
    if (begin < end)
      row_attention_gradient(row + begin, drow + begin, layout.scale, head.lse[t], head.delta[t], end - begin);
    for (float* const scored : {row, drow}) {
      std::fill(scored, scored + std::min(begin, end), 0.0f);
      std::fill(scored + end, scored + tile.keys, 0.0f);
    }
  }
  const MatrixView p{scores, tile.keys}, ds{dscores, tile.keys};
  sgemm(Transpose::yes, Transpose::no, tile.keys, layout.head_dim, tile.queries, 1.0f, p, dout, 1.0f, head.dv + key_at,
        layout.row);
  sgemm(Transpose::yes, Transpose::no, tile.keys, layout.head_dim, tile.queries, layout.scale, ds, q, 1.0f,
        head.dk + key_at, layout.row);
  sgemm(Transpose::no, Transpose::no, tile.queries, layout.head_dim, tile.keys, layout.scale, ds, k, 1.0f,
        head.dq + query_at, layout.row);
}

/// Key tiles outside, so that a tile's k, v, dk and dv stay in cache while its queries pass.
void backward_head(const BackwardHead& head, const Layout& layout, float* scores, float* dscores) {
  for (std::int64_t key_begin = 0; key_begin < layout.seq_len; key_begin += key_tile) {
    const std::int64_t last_key = std::min(key_begin + key_tile, layout.seq_len) - 1;
    const std::int64_t query_end = head.sight.query_end(last_key, layout.seq_len);
    for (std::int64_t begin = key_begin / query_block * query_block; begin < query_end; begin += query_block) {
      const std::int64_t queries = std::min(query_block, layout.seq_len - begin);
      backward_tile(head, attention_tile(begin, queries, key_begin), layout, scores, dscores);
    }
  }
}

}  // namespace

template <>
void run(const AttentionForward& op) {
  const AttentionShape& shape = op.shape;
  const Layout layout(shape);
  const std::int64_t batch = shape.batch, heads = shape.heads, seq_len = shape.seq_len;
  float *const out_data = op.out.f32(), *const lse_data = op.lse.f32();
  const float* const in = op.qkv.f32();
  const Scratch scratch(omp_get_max_threads(), query_block * key_tile);

#pragma omp parallel for schedule(dynamic)
  for (std::int64_t item = 0; item < batch * heads; ++item) {
    const std::int64_t b = item / heads, h = item % heads;
    const float* const sequence = in + b * seq_len * layout.row;
    const std::int64_t shared = h / layout.group * layout.head_dim;
    attend({.q = {sequence + h * layout.head_dim, layout.row},
            .k = {sequence + layout.key_offset + shared, layout.row},
            .v = {sequence + layout.value_offset + shared, layout.row},
            .out = out_data + b * seq_len * layout.out_row + h * layout.head_dim,
            .out_stride = layout.out_row,
            .lse = lse_data + item * seq_len,
            .queries = seq_len,
            .past = 0,
            .head_dim = layout.head_dim,
            .scale = layout.scale,
            .sight = sight_of(shape, op.documents, b)},
           scratch.of_thread(omp_get_thread_num()));
  }
}

template <>
void run(const AttentionBackward& op) {
  const AttentionShape& shape = op.shape;
  const Layout layout(shape);
  const std::int64_t batch = shape.batch, heads = shape.heads, kv_heads = shape.kv_heads, seq_len = shape.seq_len;
  float* const dqkv_data = op.dqkv.f32();
  const float *const in = op.qkv.f32(), *const out_data = op.out.f32(), *const dout_data = op.dout.f32();
  const float* const lse_data = op.lse.f32();
  const Scratch scratch(omp_get_max_threads(), 2 * query_block * key_tile + seq_len);

  // One thread owns a key/value head: the sum over its query heads has one order and needs no second buffer.
#pragma omp parallel
  {
    float* const scores = scratch.of_thread(omp_get_thread_num());
    float* const dscores = scores + query_block * key_tile;
    float* const delta = dscores + query_block * key_tile;  // (T): sum_i dout_i out_i
#pragma omp for schedule(static)
    for (std::int64_t position = 0; position < batch * seq_len; ++position) {
      std::fill_n(dqkv_data + position * layout.row, layout.row, 0.0f);
    }
#pragma omp for schedule(dynamic)
    for (std::int64_t item = 0; item < batch * kv_heads; ++item) {
      const std::int64_t b = item / kv_heads, kv = item % kv_heads;
      const std::int64_t key_at = b * seq_len * layout.row + layout.key_offset + kv * layout.head_dim;
      const std::int64_t value_at = key_at + layout.value_offset - layout.key_offset;
      for (std::int64_t h = kv * layout.group; h < (kv + 1) * layout.group; ++h) {
        const std::int64_t query_at = b * seq_len * layout.row + h * layout.head_dim;
        const std::int64_t out_at = b * seq_len * layout.out_row + h * layout.head_dim;
        for (std::int64_t t = 0; t < seq_len; ++t) {
          delta[t] =
              row_dot(dout_data + out_at + t * layout.out_row, out_data + out_at + t * layout.out_row, layout.head_dim);
        }
        const BackwardHead head{in + query_at,
                                in + key_at,
                                in + value_at,
                                dout_data + out_at,
                                lse_data + (b * heads + h) * seq_len,
                                delta,
                                dqkv_data + query_at,
                                dqkv_data + key_at,
                                dqkv_data + value_at,
                                sight_of(shape, op.documents, b)};
        backward_head(head, layout, scores, dscores);
      }
    }
  }
}

}  // namespace vqlm::cpu
