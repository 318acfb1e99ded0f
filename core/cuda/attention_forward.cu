// Causal attention forward with grouped queries, FlashAttention-2 (arXiv 2307.08691): a block keeps 128 queries,
// tiles of 64 keys and values stream past them through shared memory, scores live in registers only. Products by
// mma.sync with fp32 accumulators, softmax in fp32 and base 2, probabilities rounded to bf16 for the second product.
//
// Work of one query head of one sequence at T = 4096, head_dim 128: 2 products, 4 head_dim T (T + 1) / 2 = 4.3 GFLOP,
// at 790 TFLOP/s 5.4 us; q, k, v read and out written 4.2 MB, at 4.3 TB/s 1.0 us. Not measured: no GPU has run it.
// mma.sync reaches about 60 to 65 % of the rate of wgmma on Hopper, the 790 above: there head widths 64 and 128 run
// attention_forward_sm90.cu (attention_sm90.h says when), and this is the path of head width 32 and of all other chips.
// Tiles on the diagonal add 1.6 % of scores that the mask throws away (warps skip tiles that lie in their future
// altogether). Every query tile reads its keys again: 128 FLOP per byte out of the L2 cache, which holds them,
// because the query tiles of a head start together. A warp has two row tiles, so a fragment read from shared memory
// serves two mma: 160 bytes of shared memory per mma.m16n8k16 at head_dim 128, 1.25 cycles of its 128 bytes per
// cycle; with one row tile it would be 2.25.
//
//   head_dim                               32       64      128
//   registers (sm_80 / sm_90a)        184/194  241/242  255/255     no spills (nvcc 13.0 -Xptxas -v)
//   the same with a mask, sm_90a          213      255      255     no spills but 76 bytes at head_dim 128
//   shared memory, KiB                     24       48       96
//   blocks of 4 warps on an SM (sm_90)      2        2        2     sm_80 at head_dim 128: 1
#include <cstdint>

#include "core/cuda/attention_sm90.h"
#include "core/cuda/attention_tiles.h"
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/ops/attention.h"

namespace vqlm::cuda {
namespace {

using namespace attention;

constexpr int warps = 4;
constexpr int threads = warps * warp_size;
constexpr int row_tiles = 2;                      // of 16 queries, a warp: each key fragment read serves both
constexpr int warp_queries = 16 * row_tiles;      // 32
constexpr int query_tile = warps * warp_queries;  // 128
constexpr int key_tile = 64;

/// Shared memory of a block: queries, and keys and values in two stages.
template <int head_dim>
constexpr std::size_t shared_bytes = (query_tile + 4 * key_tile) * head_dim * sizeof(Bf16);

/// Largest raw score and sum of exponentials so far of this lane's rows 16 m + lane / 4 + 8 half; `sum` covers this
/// lane's columns only.
struct RunningSoftmax {
  float maximum[row_tiles][2];
  float sum[row_tiles][2];
};

/// Maximum and sum over the four lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(full_mask, x, 1));
  return fmaxf(x, __shfl_xor_sync(full_mask, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(full_mask, x, 1);
  return x + __shfl_xor_sync(full_mask, x, 2);
}

/// Raw scores become 2^(scale_log2 * (score - maximum)); out is brought to the new maximum. Without a mask each row's maximum is
/// finite from the first tile on, since every query sees key 0; with one, a row may see nothing of its block's first tiles.
template <int head_dim, bool masked>
__device__ __forceinline__ void update_softmax(RunningSoftmax& softmax, float (&scores)[row_tiles][key_tile / 8][4],
                                               float (&out)[row_tiles][head_dim / 8][4], float scale_log2) {
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int e = 2 * half;
      float maximum = softmax.maximum[m][half];
#pragma unroll
      for (int n = 0; n < key_tile / 8; ++n) {
        maximum = fmaxf(maximum, fmaxf(scores[m][n][e], scores[m][n][e + 1]));
      }
      maximum = row_max(maximum);
      const bool nothing = masked && maximum == -INFINITY;  // out and sum are zero, and stay so
      const float ratio = nothing ? 0.0f : exp2_approx((softmax.maximum[m][half] - maximum) * scale_log2);
      const float shift = nothing ? 0.0f : maximum * scale_log2;
      float sum = softmax.sum[m][half] * ratio;
#pragma unroll
      for (int n = 0; n < key_tile / 8; ++n) {
#pragma unroll
        for (int i = e; i < e + 2; ++i) {
          scores[m][n][i] = exp2_approx(fmaf(scores[m][n][i], scale_log2, -shift));
          sum += scores[m][n][i];
        }
      }
#pragma unroll
      for (int n = 0; n < head_dim / 8; ++n) {
        out[m][n][e] *= ratio;
        out[m][n][e + 1] *= ratio;
      }
      softmax.maximum[m][half] = maximum;
      softmax.sum[m][half] = sum;
    }
  }
}

/// Divides out by the rows' sums and writes the rows' log-sum-exp, natural logarithm, of scaled scores.
template <int head_dim>
__device__ __forceinline__ void finish_softmax(float* lse, const RunningSoftmax& softmax,
                                               float (&out)[row_tiles][head_dim / 8][4], float scale, int first_query,
                                               int seq_len) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(softmax.sum[m][half]);
      const float factor = 1.0f / sum;
#pragma unroll
      for (int n = 0; n < head_dim / 8; ++n) {
        out[m][n][2 * half] *= factor;
        out[m][n][2 * half + 1] *= factor;
      }
      const int query = first_query + 16 * m + 8 * half + lane / 4;
      if (lane % 4 == 0 && query < seq_len) lse[query] = softmax.maximum[m][half] * scale + logf(sum);
    }
  }
}

/// Block (x, h, b): the x-th query tile from the end of query head h of sequence b, so that the longest rows of tiles
/// start first and the short ones fill the gaps at the end.
template <int head_dim, bool masked>
__global__ void __launch_bounds__(threads, 2)
    attention_forward_kernel(GridDependency dependency, Bf16* out, float* lse, const Bf16* qkv, Layout layout) {
  dependency.wait();
  const int query_begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * query_tile;
  const int h = static_cast<int>(blockIdx.y), kv = h / (layout.heads / layout.kv_heads);
  const std::int64_t b = blockIdx.z;
  const Bf16* const keys = qkv + layout.head<head_dim>(b, layout.heads + kv);
  const Bf16* const values = qkv + layout.head<head_dim>(b, layout.heads + layout.kv_heads + kv);

  Bf16* const q_tile = dynamic_shared<Bf16>();           // (query_tile, head_dim)
  Bf16* const k_tiles = q_tile + query_tile * head_dim;  // (2, key_tile, head_dim)
  Bf16* const v_tiles = k_tiles + 2 * key_tile * head_dim;
  const auto load_keys = [&](int tile) {
    const int at = tile % 2 * key_tile * head_dim;
    load_tile<key_tile, head_dim, threads>(k_tiles + at, keys, layout.row, tile * key_tile, layout.seq_len);
    load_tile<key_tile, head_dim, threads>(v_tiles + at, values, layout.row, tile * key_tile, layout.seq_len);
    cp_async_commit();
  };
  load_tile<query_tile, head_dim, threads>(q_tile, qkv + layout.head<head_dim>(b, h), layout.row, query_begin,
                                           layout.seq_len);
  const int first_tile = masked ? layout.first_key(b, query_begin) / key_tile : 0;
  load_keys(first_tile);

  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const int first_query = query_begin + warp * warp_queries;
  Bf16* const warp_q = q_tile + warp * warp_queries * head_dim;
  float acc[row_tiles][head_dim / 8][4] = {};
  RunningSoftmax softmax = {{{-INFINITY, -INFINITY}, {-INFINITY, -INFINITY}}, {}};
  const float scale_log2 = layout.scale * log2_e;
  const int tiles = ceil_div(min(query_begin + query_tile, layout.seq_len), key_tile);
  int limits[row_tiles][2];
  if (masked) row_limits(limits, first_query, layout.seq_len, [&](int t) { return layout.first_key(b, t); });
  const int warp_limit = masked ? layout.first_key(b, min(first_query, layout.seq_len - 1)) : 0;
#pragma unroll 1
  for (int tile = first_tile; tile < tiles; ++tile) {
    cp_async_wait<0>();
    __syncthreads();  // this stage is there for all, and nobody reads the other any more
    if (tile + 1 < tiles) load_keys(tile + 1);
    const int key_begin = tile * key_tile, at = tile % 2 * key_tile * head_dim;
    if (key_begin >= first_query + warp_queries) continue;       // all of it in this warp's future
    if (masked && key_begin + key_tile <= warp_limit) continue;  // or too far back
    float scores[row_tiles][key_tile / 8][4] = {};
    multiply_transposed<head_dim>(scores, warp_q, k_tiles + at);
    if (key_begin + key_tile > first_query + 1) mask_future<KeyAxis::columns>(scores, first_query - key_begin);
    if (masked) mask_columns_before(scores, limits, key_begin);
    update_softmax<head_dim, masked>(softmax, scores, acc, scale_log2);
    multiply<head_dim>(acc, scores, v_tiles + at);
  }
  finish_softmax<head_dim>(lse + (b * layout.heads + h) * layout.seq_len, softmax, acc, layout.scale, first_query,
                           layout.seq_len);
  store_rows<head_dim>(out + layout.out_head<head_dim>(b, h), layout.out_row, first_query, layout.seq_len, acc, 1.0f,
                       warp_q);
}

template <int head_dim>
void launch_portable(const Context& context, const AttentionForward& op) {
  const AttentionShape& shape = op.shape;
  const Layout layout(shape, op.documents);
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, query_tile)),
                  static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.batch));
  with_mask(layout.masked(), [&](auto masked) {
    launch(attention_forward_kernel<head_dim, decltype(masked)::value>,
           {grid, threads, shared_bytes<head_dim>, context.stream}, bf16(op.out), op.lse.f32(), bf16(op.qkv), layout);
  });
}

}  // namespace

template <>
void run(const Context& context, const AttentionForward& op) {
  const AttentionShape& shape = op.shape;
  const std::int64_t out_size = shape.batch * shape.seq_len * shape.heads * shape.head_dim;
  with_head_dim(shape.head_dim, [&](auto dim) {
    if (out_size == 0) return;
    if (takes_sm90(context, shape)) return launch_sm90(context, op);
    launch_portable<decltype(dim)::value>(context, op);
  });
}

}  // namespace vqlm::cuda
