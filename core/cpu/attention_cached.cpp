// Attention of new rows to the keys and values of a cache (B, kv_heads, capacity, head_dim).
//
// One new row (decoding) is bound by memory: 8 bytes for each number of the cache's past positions, which meets 4
// operations of each query head that shares it. Chunks of the positions are independent (as in flash-decoding: a part's
// output, maximum and sum of exponentials combine exactly), so that one long sequence keeps all threads busy; within a chunk
// each key is read once for all query heads of its group. Several new rows (a prompt) go through attention_forward's tiles.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/attention_cached.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/attention_head.h"
#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/ops/attention.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// The dot products of q (n) with four rows of k, `n` floats apart, or with the first row alone where rows is 1.
template <int rows>
HWY_INLINE void dot_rows(float* result, const float* q, const float* k, std::int64_t n) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto a = hn::LoadU(d, q + i);
    s0 = hn::MulAdd(a, hn::LoadU(d, k + i), s0);
    if constexpr (rows == 4) {
      s1 = hn::MulAdd(a, hn::LoadU(d, k + n + i), s1);
      s2 = hn::MulAdd(a, hn::LoadU(d, k + 2 * n + i), s2);
      s3 = hn::MulAdd(a, hn::LoadU(d, k + 3 * n + i), s3);
    }
  }
  result[0] = hn::GetLane(hn::SumOfLanes(d, s0));
  if constexpr (rows == 4) {
    result[1] = hn::GetLane(hn::SumOfLanes(d, s1));
    result[2] = hn::GetLane(hn::SumOfLanes(d, s2));
    result[3] = hn::GetLane(hn::SumOfLanes(d, s3));
  }
  for (; i < n; ++i) {
    for (int r = 0; r < rows; ++r) result[r] += q[i] * k[r * n + i];
  }
}

/// scores (heads, keys) = q (heads, n) k (keys, n)^T.
void score_keys(float* scores, const float* q, const float* k, std::int64_t heads, std::int64_t keys, std::int64_t n) {
  std::int64_t j = 0;
  for (; j + 4 <= keys; j += 4) {
    for (std::int64_t h = 0; h < heads; ++h) dot_rows<4>(scores + h * keys + j, q + h * n, k + j * n, n);
  }
  for (; j < keys; ++j) {
    for (std::int64_t h = 0; h < heads; ++h) dot_rows<1>(scores + h * keys + j, q + h * n, k + j * n, n);
  }
}

/// out (heads, n) = p (heads, keys) v (keys, n). Four rows of v meet out at a time, which stays in the first-level cache.
void weigh_values(float* out, const float* p, const float* v, std::int64_t heads, std::int64_t keys, std::int64_t n) {
  for (std::int64_t i = 0; i < heads * n; ++i) out[i] = 0;
  std::int64_t j = 0;
  for (; j + 4 <= keys; j += 4) {
    const float* const row = v + j * n;
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* const w = p + h * keys + j;
      float* const y = out + h * n;
      for_lanes(0, n, [&](auto d, std::int64_t i) HWY_ATTR {
        auto sum = hn::MulAdd(hn::Set(d, w[0]), hn::LoadU(d, row + i), hn::LoadU(d, y + i));
        auto other = hn::Mul(hn::Set(d, w[1]), hn::LoadU(d, row + n + i));
        sum = hn::MulAdd(hn::Set(d, w[2]), hn::LoadU(d, row + 2 * n + i), sum);
        other = hn::MulAdd(hn::Set(d, w[3]), hn::LoadU(d, row + 3 * n + i), other);
        hn::StoreU(hn::Add(sum, other), d, y + i);
      });
    }
  }
  for (; j < keys; ++j) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* const row = v + j * n;
      float* const y = out + h * n;
      for_lanes(0, n, [&](auto d, std::int64_t i) HWY_ATTR {
        hn::StoreU(hn::MulAdd(hn::Set(d, p[h * keys + j]), hn::LoadU(d, row + i), hn::LoadU(d, y + i)), d, y + i);
      });
    }
  }
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(score_keys);
HWY_EXPORT(weigh_values);

namespace {

/// Positions whose part of one row is made by one thread: 128 KiB of keys and values at head_dim 64, 20 us from memory.
constexpr std::int64_t chunk_keys = 256;

/// Sizes and places of one call.
struct CachedAttention {
  float* out;            // (B, T, heads * head_dim)
  float *keys, *values;  // (B, kv_heads, capacity, head_dim)
  const float* qkv;      // (B, T, row)
  std::int64_t batch, seq_len, heads, kv_heads, head_dim, row;
  std::int64_t past, capacity;
  const AttentionShape& shape;
  Tensor documents;

  std::int64_t group() const { return heads / kv_heads; }
  /// The first position of key/value head `item` = b * kv_heads + kv in keys and values.
  std::int64_t cache_at(std::int64_t item) const { return item * capacity * head_dim; }
};

/// Copies the new rows' keys and values to their positions.
void append(const CachedAttention& a) {
  const std::int64_t heads = a.kv_heads, n = a.head_dim;
  parallel_blocks(a.batch * a.seq_len, rows_per_block(2 * heads * n), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t b = r / a.seq_len, position = a.past + r % a.seq_len;
      const float* const key = a.qkv + r * a.row + a.heads * n;
      for (std::int64_t kv = 0; kv < heads; ++kv) {
        const std::int64_t to = a.cache_at(b * heads + kv) + position * n;
        std::copy_n(key + kv * n, n, a.keys + to);
        std::copy_n(key + (heads + kv) * n, n, a.values + to);
      }
    }
  });
}

/// Softmax and output of some positions: out (head_dim) = sum exp(s - maximum) v, sum = sum exp(s - maximum).
struct Part {
  float maximum, sum;
};

/// One new row of each sequence: parts of all chunks, then their combination.
void decode(const CachedAttention& a) {
  const std::int64_t n = a.head_dim, group = a.group(), first = a.shape.first_key(a.past), length = a.past + 1 - first;
  const std::int64_t chunks = (length + chunk_keys - 1) / chunk_keys;
  const float scale = a.shape.score_scale();
  const std::int64_t rows = a.batch * a.heads * chunks;  // parts, (B, kv_heads, chunks, group)
  const Scratch outputs(1, rows * n);
  std::vector<Part> parts(static_cast<std::size_t>(rows));
  const Scratch scratch(omp_get_max_threads(), group * chunk_keys);
#pragma omp parallel for schedule(static) if (a.batch * a.kv_heads * chunks > 1)
  for (std::int64_t item = 0; item < a.batch * a.kv_heads * chunks; ++item) {
    const std::int64_t head = item / chunks, begin = item % chunks * chunk_keys;  // head: b * kv_heads + kv
    // A document's first keys may lie within a chunk, or behind it, which then has no part.
    const std::int64_t hidden = sight_of(a.shape, a.documents, head / a.kv_heads).first_key(a.past) - first - begin;
    const std::int64_t skipped = std::clamp<std::int64_t>(hidden, 0, chunk_keys);
    const std::int64_t count = std::min(chunk_keys, length - begin) - skipped;
    if (count <= 0) {
      for (std::int64_t h = 0; h < group; ++h)
        parts[static_cast<std::size_t>(item * group + h)] = {-std::numeric_limits<float>::infinity(), 0};
      std::fill_n(outputs.of_thread(0) + item * group * n, group * n, 0.0f);
      continue;
    }
    float* const scores = scratch.of_thread(omp_get_thread_num());
    const float* const q = a.qkv + head / a.kv_heads * a.row + head % a.kv_heads * group * n;
    const std::int64_t at = a.cache_at(head) + (first + begin + skipped) * n;
    HWY_DYNAMIC_DISPATCH(score_keys)(scores, q, a.keys + at, group, count, n);
    for (std::int64_t h = 0; h < group; ++h) {
      Part& part = parts[static_cast<std::size_t>(item * group + h)];
      part.maximum = scale * row_maximum(scores + h * count, count);
      part.sum = row_exp(scores + h * count, scale, part.maximum, count);
    }
    HWY_DYNAMIC_DISPATCH(weigh_values)
    (outputs.of_thread(0) + item * group * n, scores, a.values + at, group, count, n);
  }
  parallel_blocks(a.batch * a.heads, rows_per_block(chunks * n), [&](std::int64_t first_row, std::int64_t last_row) {
    for (std::int64_t row = first_row; row < last_row; ++row) {
      const std::int64_t first_part = row / group * chunks * group + row % group;
      const auto part = [&](std::int64_t c) { return parts[static_cast<std::size_t>(first_part + c * group)]; };
      float maximum = part(0).maximum, sum = 0;
      for (std::int64_t c = 1; c < chunks; ++c) maximum = std::max(maximum, part(c).maximum);
      for (std::int64_t c = 0; c < chunks; ++c) sum += part(c).sum * std::exp(part(c).maximum - maximum);
      float* const y = a.out + row * n;  // (B, heads, head_dim) where T = 1
      std::fill_n(y, n, 0.0f);
      for (std::int64_t c = 0; c < chunks; ++c) {
        row_add(y, outputs.of_thread(0) + (first_part + c * group) * n, std::exp(part(c).maximum - maximum) / sum, n);
      }
    }
  });
}

/// Several new rows of each sequence: a thread takes a block of one head's rows.
void prefill(const CachedAttention& a) {
  const std::int64_t n = a.head_dim, blocks = (a.seq_len + query_block - 1) / query_block;
  const Scratch scratch(omp_get_max_threads(), query_block * key_tile);
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t item = 0; item < a.batch * a.heads * blocks; ++item) {
    const std::int64_t b = item / blocks / a.heads, h = item / blocks % a.heads;
    const std::int64_t begin = item % blocks * query_block;
    const std::int64_t cache = a.cache_at(b * a.kv_heads + h / a.group());
    attend({.q = {a.qkv + (b * a.seq_len + begin) * a.row + h * n, a.row},
            .k = {a.keys + cache, n},
            .v = {a.values + cache, n},
            .out = a.out + (b * a.seq_len + begin) * a.heads * n + h * n,
            .out_stride = a.heads * n,
            .lse = nullptr,
            .queries = std::min(query_block, a.seq_len - begin),
            .past = a.past + begin,
            .head_dim = n,
            .scale = a.shape.score_scale(),
            .sight = sight_of(a.shape, a.documents, b)},
           scratch.of_thread(omp_get_thread_num()));
  }
}

}  // namespace

template <>
void run(const AttentionCached& op) {
  const AttentionShape& shape = op.shape;
  const CachedAttention attention{.out = op.out.f32(),
                                  .keys = op.keys.f32(),
                                  .values = op.values.f32(),
                                  .qkv = op.qkv.f32(),
                                  .batch = shape.batch,
                                  .seq_len = shape.seq_len,
                                  .heads = shape.heads,
                                  .kv_heads = shape.kv_heads,
                                  .head_dim = shape.head_dim,
                                  .row = shape.row(),
                                  .past = op.past,
                                  .capacity = op.keys.extent(2),
                                  .shape = shape,
                                  .documents = op.documents};
  append(attention);
  if (shape.seq_len == 1) {
    decode(attention);
  } else {
    prefill(attention);
  }
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
