// Gradients of causal attention with grouped queries (arXiv 2307.08691), without floating-point atomics: sums have
// one order, and every run gives the same bits. Three kernels: delta = sum_i dout_i out_i of every query; dk and dv,
// a block for each key tile, which sums over the query heads of its group; dq, a block for each query tile, which
// computes scores and dp anew. On Hopper the last two are attention_backward_sm90.cu's for head widths 64 and 128.
//
// Work of one query head of one sequence at T = 4096, head_dim 128, kv_heads = heads (not measured: no GPU has run it):
//   the gradients themselves          5 products  10.7 GFLOP  13.6 us at 790 TFLOP/s
//   these kernels                     7 products  15.0 GFLOP  19.0 us at 790 TFLOP/s;  14 MB, 3.2 us at 4.3 TB/s
//   one kernel, partial dq in memory  5 products  13.6 us, but (T / 128 + 1) / 2 partials of T x head_dim floats,
//                                     written and read: 69 MB, 16 us at 4.3 TB/s; 35 MB of workspace for every head
// So two more products (5.4 us) are cheaper than the partials, and they need no memory.
//
// Scores are computed transposed, (keys, queries), where keys are the block's rows: p and dscores are then the row
// operands of the products for dv and dk as they lie in the registers, as dscores (queries, keys) is for dq. Shared
// memory traffic per mma.m16n8k16 at head_dim 128: 288 bytes for dk and dv (2.25 cycles of 128 bytes: their
// accumulators leave room for one row tile a warp only, so this is what bounds the kernel), 213 for dq.
//
//                                     dk, dv                   dq
//   head_dim                          32       64      128     32       64      128
//   registers (sm_80 / sm_90a)   218/224  255/255  255/255  242/242  255/255  255/255   no spills (-Xptxas -v)
//   shared memory, KiB              24.5     48.5       97     33       65     96.5
//   blocks of 4 warps on an SM         2        2        2      2        2        2     sm_80 at head_dim 128: 1
#include <cstdint>

#include "core/cuda/attention_gradient.h"
#include "core/cuda/attention_sm90.h"
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/ops/attention.h"

namespace vqlm::cuda {
namespace {

using namespace attention;

constexpr int constants_threads = 256;

/// head_dim / 8 neighbouring lanes share a row (t, h) of a sequence, t below padded_len; blocks (rows, sequences) cover them
/// exactly. Inside a sequence rows are counted in 32 bits: divisions by 64 made it 288 instructions in place of 144 (nvcc 13.0).
template <int head_dim>
__global__ void __launch_bounds__(constants_threads)
    query_constants_kernel(GridDependency dependency, QueryConstants* constants, const Bf16* dout, const Bf16* out,
                           const float* lse, Layout layout) {
  dependency.wait();
  constexpr int lanes = head_dim / 8;
  const unsigned i = blockIdx.x * constants_threads + threadIdx.x, heads = static_cast<unsigned>(layout.heads);
  const unsigned row = i / lanes;
  const int t = static_cast<int>(row / heads), h = static_cast<int>(row % heads), chunk = static_cast<int>(i % lanes);
  const std::int64_t b = blockIdx.y, head = b * layout.heads + h;
  float delta = 0;
  if (t < layout.seq_len) {
    const std::int64_t at = layout.out_head<head_dim>(b, h) + t * layout.out_row + chunk * 8;
    float x[8], y[8];
    load8(x, dout + at);
    load8(y, out + at);
#pragma unroll
    for (int k = 0; k < 8; ++k) delta = fmaf(x[k], y[k], delta);
  }
#pragma unroll
  for (int distance = lanes / 2; distance > 0; distance /= 2) delta += __shfl_xor_sync(full_mask, delta, distance);
  if (chunk == 0) {
    const float lse_log2 = t < layout.seq_len ? lse[head * layout.seq_len + t] * log2_e : INFINITY;
    constants[head * padded_len(layout.seq_len) + t] = {lse_log2, delta};
  }
}

/// One warp, one tile of queries: dv += p^T dout and dk += dscores^T q, transposed as they are computed. `lead` is
/// the position of the tile's first query - that of the warp's first key. limits: how far ahead the keys are seen.
template <int head_dim, bool masked, int M, int columns>
__device__ __forceinline__ void add_key_gradients(float (&dk)[M][head_dim / 8][4], float (&dv)[M][head_dim / 8][4],
                                                  const Bf16* k, const Bf16* v, const Bf16* q, const Bf16* dout,
                                                  const QueryConstants* constants, int lead, float scale_log2,
                                                  const int (&limits)[M][2], int query_begin) {
  float scores[M][columns / 8][4] = {}, dscores[M][columns / 8][4] = {};
  multiply_transposed<head_dim>(scores, k, q);
  multiply_transposed<head_dim>(dscores, v, dout);
  if (lead < 16 * M - 1) mask_future<KeyAxis::rows>(scores, lead);
  if (masked) mask_columns_from(scores, limits, query_begin);
  gradient_of_columns(scores, dscores, constants, scale_log2);
  multiply<head_dim>(dv, scores, dout);
  multiply<head_dim>(dk, dscores, q);
}

/// Block (x, kv, b): dk and dv of the x-th key tile of key/value head kv of sequence b, summed over the query heads
/// of its group and their queries from the diagonal on, as far as the last key is seen. The first key tiles are the longest and
/// start first.
template <int head_dim, bool masked>
__global__ void __launch_bounds__(KeyTiling<head_dim>::threads, 2)
    key_gradient_kernel(GridDependency dependency, Bf16* dqkv, const Bf16* dout, const Bf16* qkv,
                        const QueryConstants* constants, Layout layout) {
  dependency.wait();
  using Tiles = KeyTiling<head_dim>;
  constexpr int columns = Tiles::columns, M = Tiles::row_tiles;
  const int key_begin = static_cast<int>(blockIdx.x) * Tiles::rows, kv = static_cast<int>(blockIdx.y);
  const std::int64_t b = blockIdx.z;
  const int group = layout.heads / layout.kv_heads;
  const std::int64_t key_head = layout.head<head_dim>(b, layout.heads + kv);
  const std::int64_t value_head = layout.head<head_dim>(b, layout.heads + layout.kv_heads + kv);

  Bf16* const k_tile = dynamic_shared<Bf16>();                // (rows, head_dim)
  Bf16* const v_tile = k_tile + Tiles::rows * head_dim;       // (rows, head_dim)
  Bf16* const q_tiles = v_tile + Tiles::rows * head_dim;      // (2, columns, head_dim)
  Bf16* const dout_tiles = q_tiles + 2 * columns * head_dim;  // (2, columns, head_dim)
  auto* const constants_tiles = reinterpret_cast<QueryConstants*>(dout_tiles + 2 * columns * head_dim);  // (2, columns)

  // Tiles of queries are counted through the group's heads, so that the stages never run empty between heads.
  const int last_key = min(key_begin + Tiles::rows, layout.seq_len) - 1;
  const int query_end = masked ? layout.query_end(b, last_key) : layout.seq_len;
  const int first_tile = key_begin / columns, tiles_per_head = ceil_div(query_end, columns) - first_tile;
  const auto load_queries = [&](int tile) {
    const int h = kv * group + tile / tiles_per_head, stage = tile % 2;
    const int begin = (first_tile + tile % tiles_per_head) * columns;
    load_tile<columns, head_dim, Tiles::threads>(q_tiles + stage * columns * head_dim,
                                                 qkv + layout.head<head_dim>(b, h), layout.row, begin, layout.seq_len);
    load_tile<columns, head_dim, Tiles::threads>(dout_tiles + stage * columns * head_dim,
                                                 dout + layout.out_head<head_dim>(b, h), layout.out_row, begin,
                                                 layout.seq_len);
    const int i = 2 * static_cast<int>(threadIdx.x);  // two queries a copy
    const QueryConstants* const source = constants + (b * layout.heads + h) * padded_len(layout.seq_len) + begin;
    if (i < columns) cp_async_16(constants_tiles + stage * columns + i, source + i, true);
    cp_async_commit();
  };
  load_tile<Tiles::rows, head_dim, Tiles::threads>(k_tile, qkv + key_head, layout.row, key_begin, layout.seq_len);
  load_tile<Tiles::rows, head_dim, Tiles::threads>(v_tile, qkv + value_head, layout.row, key_begin, layout.seq_len);
  load_queries(0);

  const int warp = static_cast<int>(threadIdx.x) / warp_size, first_key = key_begin + warp * Tiles::warp_rows;
  Bf16* const warp_k = k_tile + warp * Tiles::warp_rows * head_dim;
  Bf16* const warp_v = v_tile + warp * Tiles::warp_rows * head_dim;
  float dk[M][head_dim / 8][4] = {}, dv[M][head_dim / 8][4] = {};
  int limits[M][2];
  if (masked) row_limits(limits, first_key, layout.seq_len, [&](int k) { return layout.query_end(b, k); });
  const int warp_end =
      masked ? layout.query_end(b, min(first_key + Tiles::warp_rows, layout.seq_len) - 1) : layout.seq_len;
#pragma unroll 1
  for (int tile = 0; tile < group * tiles_per_head; ++tile) {
    cp_async_wait<0>();
    __syncthreads();  // this stage is there for all, and nobody reads the other any more
    if (tile + 1 < group * tiles_per_head) load_queries(tile + 1);
    const int query_begin = (first_tile + tile % tiles_per_head) * columns;
    if (query_begin + columns <= first_key) continue;  // all of it in the past of this warp's keys
    if (masked && query_begin >= warp_end) continue;   // or too far ahead
    const int stage_at = tile % 2 * columns * head_dim;
    add_key_gradients<head_dim, masked, M, columns>(dk, dv, warp_k, warp_v, q_tiles + stage_at, dout_tiles + stage_at,
                                                    constants_tiles + tile % 2 * columns, query_begin - first_key,
                                                    layout.scale * log2_e, limits, query_begin);
  }
  store_rows<head_dim>(dqkv + key_head, layout.row, first_key, layout.seq_len, dk, layout.scale, warp_k);
  store_rows<head_dim>(dqkv + value_head, layout.row, first_key, layout.seq_len, dv, 1.0f, warp_v);
}

/// One warp, one tile of keys: dq += dscores k. `lead` is the position of the warp's first query - that of the first
/// key. limits: how far back the queries see.
template <int head_dim, bool masked, int M, int columns>
__device__ __forceinline__ void add_query_gradients(float (&dq)[M][head_dim / 8][4], const Bf16* q, const Bf16* dout,
                                                    const Bf16* k, const Bf16* v,
                                                    const QueryConstants (&constants)[M][2], int lead, float scale_log2,
                                                    const int (&limits)[M][2], int key_begin) {
  float scores[M][columns / 8][4] = {}, dscores[M][columns / 8][4] = {};
  multiply_transposed<head_dim>(scores, q, k);
  multiply_transposed<head_dim>(dscores, dout, v);
  if (lead < columns - 1) mask_future<KeyAxis::columns>(scores, lead);
  if (masked) mask_columns_before(scores, limits, key_begin);
  gradient_of_rows(scores, dscores, constants, scale_log2);
  multiply<head_dim>(dq, dscores, k);
}

/// Block (x, h, b): dq of the x-th query tile from the end of query head h of sequence b; the longest start first.
template <int head_dim, bool masked>
__global__ void __launch_bounds__(QueryTiling<head_dim>::threads, 2)
    query_gradient_kernel(GridDependency dependency, Bf16* dqkv, const Bf16* dout, const Bf16* qkv,
                          const QueryConstants* constants, Layout layout) {
  dependency.wait();
  using Tiles = QueryTiling<head_dim>;
  constexpr int columns = Tiles::columns, M = Tiles::row_tiles;
  const int query_begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * Tiles::rows;
  const int h = static_cast<int>(blockIdx.y), kv = h / (layout.heads / layout.kv_heads);
  const std::int64_t b = blockIdx.z;
  const std::int64_t query_head = layout.head<head_dim>(b, h);
  const Bf16* const keys = qkv + layout.head<head_dim>(b, layout.heads + kv);
  const Bf16* const values = qkv + layout.head<head_dim>(b, layout.heads + layout.kv_heads + kv);

  Bf16* const q_tile = dynamic_shared<Bf16>();               // (rows, head_dim)
  Bf16* const dout_tile = q_tile + Tiles::rows * head_dim;   // (rows, head_dim)
  Bf16* const k_tiles = dout_tile + Tiles::rows * head_dim;  // (2, columns, head_dim)
  Bf16* const v_tiles = k_tiles + 2 * columns * head_dim;    // (2, columns, head_dim)
  const auto load_keys = [&](int tile) {
    const int at = tile % 2 * columns * head_dim;
    load_tile<columns, head_dim, Tiles::threads>(k_tiles + at, keys, layout.row, tile * columns, layout.seq_len);
    load_tile<columns, head_dim, Tiles::threads>(v_tiles + at, values, layout.row, tile * columns, layout.seq_len);
    cp_async_commit();
  };
  load_tile<Tiles::rows, head_dim, Tiles::threads>(q_tile, qkv + query_head, layout.row, query_begin, layout.seq_len);
  load_tile<Tiles::rows, head_dim, Tiles::threads>(dout_tile, dout + layout.out_head<head_dim>(b, h), layout.out_row,
                                                   query_begin, layout.seq_len);
  const int first_tile = masked ? layout.first_key(b, query_begin) / columns : 0;
  load_keys(first_tile);

  const int thread = static_cast<int>(threadIdx.x), warp = thread / warp_size, lane = thread % warp_size;
  const int first_query = query_begin + warp * Tiles::warp_rows;
  Bf16* const warp_q = q_tile + warp * Tiles::warp_rows * head_dim;
  const Bf16* const warp_dout = dout_tile + warp * Tiles::warp_rows * head_dim;
  QueryConstants of_rows[M][2];
#pragma unroll
  for (int i = 0; i < 2 * M; ++i) {
    of_rows[i / 2][i % 2] =
        constants[(b * layout.heads + h) * padded_len(layout.seq_len) + first_query + 8 * i + lane / 4];
  }
  float dq[M][head_dim / 8][4] = {};
  const int tiles = ceil_div(min(query_begin + Tiles::rows, layout.seq_len), columns);
  int limits[M][2];
  if (masked) row_limits(limits, first_query, layout.seq_len, [&](int t) { return layout.first_key(b, t); });
  const int warp_limit = masked ? layout.first_key(b, min(first_query, layout.seq_len - 1)) : 0;
#pragma unroll 1
  for (int tile = first_tile; tile < tiles; ++tile) {
    cp_async_wait<0>();
    __syncthreads();  // this stage is there for all, and nobody reads the other any more
    if (tile + 1 < tiles) load_keys(tile + 1);
    const int key_begin = tile * columns, at = tile % 2 * columns * head_dim;
    if (key_begin >= first_query + Tiles::warp_rows) continue;  // all of it in this warp's future
    if (masked && key_begin + columns <= warp_limit) continue;  // or too far back
    add_query_gradients<head_dim, masked, M, columns>(dq, warp_q, warp_dout, k_tiles + at, v_tiles + at, of_rows,
                                                      first_query - key_begin, layout.scale * log2_e, limits,
                                                      key_begin);
  }
  store_rows<head_dim>(dqkv + query_head, layout.row, first_query, layout.seq_len, dq, layout.scale, warp_q);
}

/// Queues the constants of every query, in the workspace.
template <int head_dim>
const QueryConstants* launch_constants(const Context& context, const AttentionBackward& op) {
  const AttentionShape& shape = op.shape;
  const std::int64_t rows = shape.batch * shape.heads * padded_len(shape.seq_len);
  auto* const constants =
      static_cast<QueryConstants*>(context.workspace->get(static_cast<std::size_t>(rows) * sizeof(QueryConstants)));
  const std::int64_t threads = rows / shape.batch * (head_dim / 8);  // of a sequence
  VQLM_ASSERT(threads <= UINT32_MAX);
  const dim3 blocks(static_cast<unsigned>(threads / constants_threads), static_cast<unsigned>(shape.batch));
  launch(query_constants_kernel<head_dim>, {blocks, constants_threads, 0, context.stream}, constants, bf16(op.dout),
         bf16(op.out), op.lse.f32(), Layout(shape, op.documents));
  return constants;
}

template <int head_dim>
void launch_portable(const Context& context, const AttentionBackward& op, const QueryConstants* constants) {
  using Keys = KeyTiling<head_dim>;
  using Queries = QueryTiling<head_dim>;
  const AttentionShape& shape = op.shape;
  const Layout layout(shape, op.documents);
  Bf16* const dqkv = bf16(op.dqkv);
  const Bf16 *const dout = bf16(op.dout), *const qkv = bf16(op.qkv);
  const auto grid = [&](int tile_rows, int heads) {
    return dim3(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, tile_rows)), static_cast<unsigned>(heads),
                static_cast<unsigned>(shape.batch));
  };
  with_mask(layout.masked(), [&](auto mask) {
    constexpr bool masked = decltype(mask)::value;
    launch(key_gradient_kernel<head_dim, masked>,
           {grid(Keys::rows, shape.kv_heads), Keys::threads, shared_bytes<head_dim, Keys>, context.stream}, dqkv, dout,
           qkv, constants, layout);
    launch(query_gradient_kernel<head_dim, masked>,
           {grid(Queries::rows, shape.heads), Queries::threads, shared_bytes<head_dim, Queries>, context.stream}, dqkv,
           dout, qkv, constants, layout);
  });
}

}  // namespace

template <>
void run(const Context& context, const AttentionBackward& op) {
  const AttentionShape& shape = op.shape;
  const std::int64_t out_size = shape.batch * shape.seq_len * shape.heads * shape.head_dim;
  with_head_dim(shape.head_dim, [&](auto dim) {
    constexpr int head_dim = decltype(dim)::value;
    if (out_size == 0) return;
    const QueryConstants* const constants = launch_constants<head_dim>(context, op);
    if (takes_sm90(context, shape)) return launch_sm90(context, op, constants);
    launch_portable<head_dim>(context, op, constants);
  });
}

}  // namespace vqlm::cuda
