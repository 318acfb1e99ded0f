// Gradients of causal attention for Hopper: the two deterministic kernels of attention_backward.cu, without atomics and with
// one order of every sum, on wgmma and bulk tensor copies. A thread of a producer warp streams tiles in two stages past two
// warpgroups that own 64 rows each, keys (dk, dv) or queries (dq), with their gradients in registers.
//
// Where keys are the rows scores are computed transposed, (keys, queries), so p and dscores are operand a of the products
// for dv and dk as they lie in the registers, as dscores (queries, keys) is for dq: nothing goes back through shared memory.
// A tile's products of scores and dp are issued together, p is computed while dp is in flight and dscores while dv is; the
// other warpgroup's products fill the rest.
//
// Model, head_dim 128, one tile, both warpgroups, at 4,096 FLOP and 128 bytes of shared memory a cycle and SM:
//   dk, dv   128 keys x 64 queries: 4 products, 2,048 cycles; shared memory (2 x 2 x (16 + 16) + 2 x 2 x 16) KiB, 1,536
//   dq       128 queries x 128 keys: 3 products, 3,072 cycles; (2 x 2 x (16 + 32) + 2 x 32) KiB, 2,048
// 7 products for the 5 of the gradients (attention_backward.cu says why that is the better bargain). Not measured: no GPU has
// run it; the host executor has (tests/simt).
//
//                               dk, dv            dq
//   head_dim                    64       128      64       128
//   registers at the start     168       168     168       168    24 for the producers and 240 for the consumers then; no
//                                                                 spills, no serialised wgmma (nvcc 13.0 -Xptxas -v)
//   shared memory, KiB          66       130      99       195
//
// Compiled for sm_90a alone. Head widths 64 and 128; windows and documents by the same masks as the portable kernels.
#include <cstdint>

#include "core/cuda/attention_gradient_sm90.h"
#include "core/cuda/attention_sm90.h"
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"

namespace vqlm::cuda {
namespace {

using namespace attention;

/// The block's tiles of queries: those of a head, then the next head's of the group.
struct QueryTiles {
  int first, per_head, count;
};

template <int head_dim, class Stages>
__device__ __forceinline__ void produce_queries(const Stages& shared, const CUtensorMap& qkv, const CUtensorMap& dout,
                                                const QueryConstants* constants, const Layout& layout, QueryTiles tiles,
                                                int key_begin, int kv, int b) {
  const int key_head = layout.heads + kv, group = layout.heads / layout.kv_heads;
  mbarrier_arrive_expect_tx(shared.own(), Stages::own_bytes);
  load_head_tile<gradient_rows, load_rows, head_dim>(shared.own_tile(0), qkv, shared.own(), key_head * head_dim,
                                                     key_begin, b);
  load_head_tile<gradient_rows, load_rows, head_dim>(shared.own_tile(1), qkv, shared.own(),
                                                     (key_head + layout.kv_heads) * head_dim, key_begin, b);
  for (int i = 0; i < tiles.count; ++i) {
    const int stage = i % gradient_stages, h = kv * group + i / tiles.per_head;
    const int begin = (tiles.first + i % tiles.per_head) * Stages::columns;
    Mbarrier* const full = shared.full(stage);
    mbarrier_wait(shared.empty(stage), (i / gradient_stages + 1) % 2);
    mbarrier_arrive_expect_tx(full, Stages::bytes + Stages::constants_bytes);
    load_head_tile<Stages::columns, load_rows, head_dim>(shared.tile(stage, 0), qkv, full, h * head_dim, begin, b);
    load_head_tile<Stages::columns, load_rows, head_dim>(shared.tile(stage, 1), dout, full, h * head_dim, begin, b);
    const std::int64_t row = (static_cast<std::int64_t>(b) * layout.heads + h) * padded_len(layout.seq_len) + begin;
    bulk_load_bytes(shared.constants(stage), constants + row, Stages::constants_bytes, full);
  }
}

/// Block (x, kv, b): dk and dv of the x-th key tile of key/value head kv of sequence b; the first are the longest.
template <int head_dim, bool masked>
__global__ void __launch_bounds__(gradient_threads, 1)
    key_gradient_sm90_kernel(GridDependency dependency, const __grid_constant__ CUtensorMap dqkv,
                             const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap dout,
                             const QueryConstants* constants, Layout layout) {
  using Stages = KeyStages<head_dim>;
  constexpr int columns = Stages::columns;
  const Stages shared;
  const int key_begin = static_cast<int>(blockIdx.x) * gradient_rows, kv = static_cast<int>(blockIdx.y);
  const int b = static_cast<int>(blockIdx.z);
  const int last_key = min(key_begin + gradient_rows, layout.seq_len) - 1;
  if (threadIdx.x == 0) shared.init_barriers();
  dependency.wait();
  __syncthreads();
  QueryTiles tiles;
  tiles.first = key_begin / columns;
  tiles.per_head = ceil_div(masked ? layout.query_end(b, last_key) : layout.seq_len, columns) - tiles.first;
  tiles.count = layout.heads / layout.kv_heads * tiles.per_head;
  if (threadIdx.x < warpgroup_threads) {
    set_registers_down<gradient_producer_registers>();
    if (threadIdx.x == 0) {
      produce_queries<head_dim>(shared, qkv, dout, constants, layout, tiles, key_begin, kv, b);
    }
    return;
  }
  set_registers_up<gradient_consumer_registers>();
  const Place place(key_begin);
  const auto own = [&](int i) {
    return tile_descriptor<gradient_rows>(shared.own_tile(i) + place.group * warpgroup_rows * panel_columns);
  };
  const MatrixDescriptor k = own(0), v = own(1);
  const float scale_log2 = layout.scale * log2_e;
  int limits[1][2];
  if (masked) row_limits(limits, place.first_row, layout.seq_len, [&](int key) { return layout.query_end(b, key); });
  float scores[columns / 8][4], dscores[columns / 8][4], dk[head_dim / 8][4] = {}, dv[head_dim / 8][4] = {};
  unsigned p[columns / 16][4], ds[columns / 16][4];
  mbarrier_wait(shared.own(), 0);
#pragma unroll 1
  for (int i = 0; i < tiles.count; ++i) {
    const int stage = i % gradient_stages, query_begin = (tiles.first + i % tiles.per_head) * columns;
    const MatrixDescriptor q_tile = tile_descriptor<columns>(shared.tile(stage, 0));
    const MatrixDescriptor dout_tile = tile_descriptor<columns>(shared.tile(stage, 1));
    mbarrier_wait(shared.full(stage), i / gradient_stages % 2);
    wgmma_fence(scores, dscores);
    issue_transposed<head_dim, gradient_rows, columns>(scores, k, q_tile);
    wgmma_commit();
    issue_transposed<head_dim, gradient_rows, columns>(dscores, v, dout_tile);
    wgmma_commit();
    wgmma_wait<1>(scores);
    const int lead = query_begin - place.first_row;
    if (lead < 15) mask_future<KeyAxis::rows>(scores, lead);
    if (masked) mask_columns<Seen::below_limit>(scores, limits[0], query_begin);
    const ColumnConstants of_queries{shared.constants(stage)};
    probabilities(scores, of_queries, scale_log2);
    pack_operand(p, scores);
    wgmma_fence(dv);
    issue_product(dv, p, dout_tile);
    wgmma_commit();
    wgmma_wait<1>(dscores);
    score_gradients(dscores, scores, of_queries);
    pack_operand(ds, dscores);
    wgmma_fence(dk);
    issue_product(dk, ds, q_tile);
    wgmma_commit();
    wgmma_wait<0>(dk, dv);
    if (place.lane == 0) mbarrier_arrive(shared.empty(stage));
  }
  scale_rows(dk, layout.scale, layout.scale);
  named_barrier_sync(1 + place.group, warpgroup_threads);  // all four warps are done with k and v
  const int column = (layout.heads + kv) * head_dim, at = place.warp_row * panel_columns;
  store_warp_rows<gradient_rows, head_dim>(dqkv, shared.own_tile(0) + at, dk, column, place.first_row, b);
  store_warp_rows<gradient_rows, head_dim>(dqkv, shared.own_tile(1) + at, dv, column + layout.kv_heads * head_dim,
                                           place.first_row, b);
  bulk_store_wait<0>();
}

template <int head_dim, class Stages>
__device__ __forceinline__ void produce_keys(const Stages& shared, const CUtensorMap& qkv, const CUtensorMap& dout,
                                             const Layout& layout, int first_tile, int count, int query_begin, int h,
                                             int b) {
  const int key_head = layout.heads + h / (layout.heads / layout.kv_heads);
  mbarrier_arrive_expect_tx(shared.own(), Stages::own_bytes);
  load_head_tile<gradient_rows, load_rows, head_dim>(shared.own_tile(0), qkv, shared.own(), h * head_dim, query_begin,
                                                     b);
  load_head_tile<gradient_rows, load_rows, head_dim>(shared.own_tile(1), dout, shared.own(), h * head_dim, query_begin,
                                                     b);
  for (int i = 0; i < count; ++i) {
    const int stage = i % gradient_stages, begin = (first_tile + i) * Stages::columns;
    Mbarrier* const full = shared.full(stage);
    mbarrier_wait(shared.empty(stage), (i / gradient_stages + 1) % 2);
    mbarrier_arrive_expect_tx(full, Stages::bytes);
    load_head_tile<Stages::columns, load_rows, head_dim>(shared.tile(stage, 0), qkv, full, key_head * head_dim, begin,
                                                         b);
    load_head_tile<Stages::columns, load_rows, head_dim>(shared.tile(stage, 1), qkv, full,
                                                         (key_head + layout.kv_heads) * head_dim, begin, b);
  }
}

/// Block (x, h, b): dq of the x-th query tile from the end of query head h of sequence b; the longest start first.
template <int head_dim, bool masked>
__global__ void __launch_bounds__(gradient_threads, 1)
    query_gradient_sm90_kernel(GridDependency dependency, const __grid_constant__ CUtensorMap dqkv,
                               const __grid_constant__ CUtensorMap qkv, const __grid_constant__ CUtensorMap dout,
                               const QueryConstants* constants, Layout layout) {
  using Stages = QueryStages<head_dim>;
  constexpr int columns = Stages::columns;
  const Stages shared;
  const int query_begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * gradient_rows;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  if (threadIdx.x == 0) shared.init_barriers();
  dependency.wait();
  __syncthreads();
  const int first_tile = masked ? layout.first_key(b, query_begin) / columns : 0;
  const int count = query_begin / columns + 1 - first_tile;
  if (threadIdx.x < warpgroup_threads) {
    set_registers_down<gradient_producer_registers>();
    if (threadIdx.x == 0) produce_keys<head_dim>(shared, qkv, dout, layout, first_tile, count, query_begin, h, b);
    return;
  }
  set_registers_up<gradient_consumer_registers>();
  const Place place(query_begin);
  const auto own = [&](int i) {
    return tile_descriptor<gradient_rows>(shared.own_tile(i) + place.group * warpgroup_rows * panel_columns);
  };
  const MatrixDescriptor q = own(0), dout_rows = own(1);
  const float scale_log2 = layout.scale * log2_e;
  const QueryConstants* const of_block =
      constants + (static_cast<std::int64_t>(b) * layout.heads + h) * padded_len(layout.seq_len) + place.first_row;
  const RowConstants of_queries{{of_block[place.lane / 4], of_block[8 + place.lane / 4]}};
  int limits[1][2];
  if (masked) row_limits(limits, place.first_row, layout.seq_len, [&](int t) { return layout.first_key(b, t); });
  float scores[columns / 8][4], dscores[columns / 8][4], dq[head_dim / 8][4] = {};
  unsigned ds[columns / 16][4];
  mbarrier_wait(shared.own(), 0);
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const int stage = i % gradient_stages, key_begin = (first_tile + i) * columns;
    const MatrixDescriptor k_tile = tile_descriptor<columns>(shared.tile(stage, 0));
    mbarrier_wait(shared.full(stage), i / gradient_stages % 2);
    wgmma_fence(scores, dscores);
    issue_transposed<head_dim, gradient_rows, columns>(scores, q, k_tile);
    wgmma_commit();
    issue_transposed<head_dim, gradient_rows, columns>(dscores, dout_rows,
                                                       tile_descriptor<columns>(shared.tile(stage, 1)));
    wgmma_commit();
    wgmma_wait<1>(scores);
    if (key_begin == query_begin) mask_future<KeyAxis::columns>(scores, place.warp_row);
    if (masked) mask_columns<Seen::from_limit>(scores, limits[0], key_begin);
    probabilities(scores, of_queries, scale_log2);
    wgmma_wait<0>(dscores);
    score_gradients(dscores, scores, of_queries);
    pack_operand(ds, dscores);
    wgmma_fence(dq);
    issue_product(dq, ds, k_tile);
    wgmma_commit();
    wgmma_wait<0>(dq);
    if (place.lane == 0) mbarrier_arrive(shared.empty(stage));
  }
  scale_rows(dq, layout.scale, layout.scale);
  named_barrier_sync(1 + place.group, warpgroup_threads);  // all four warps are done with q
  store_warp_rows<gradient_rows, head_dim>(dqkv, shared.own_tile(0) + place.warp_row * panel_columns, dq, h * head_dim,
                                           place.first_row, b);
  bulk_store_wait<0>();
}

template <int head_dim>
void launch_hopper_gradients(const Context& context, const AttentionBackward& op, const QueryConstants* constants) {
  const AttentionShape& shape = op.shape;
  const Layout layout(shape, op.documents);
  const CUtensorMap dqkv = sequence_map(op.dqkv, shape, layout.row, 16);
  const CUtensorMap qkv = sequence_map(op.qkv, shape, layout.row, load_rows);
  const CUtensorMap dout = sequence_map(op.dout, shape, layout.out_row, load_rows);
  const auto grid = [&](int heads) {
    return dim3(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, gradient_rows)),
                static_cast<unsigned>(heads), static_cast<unsigned>(shape.batch));
  };
  with_mask(layout.masked(), [&](auto mask) {
    constexpr bool masked = decltype(mask)::value;
    launch(key_gradient_sm90_kernel<head_dim, masked>,
           {grid(shape.kv_heads), gradient_threads, KeyStages<head_dim>::shared_bytes, context.stream}, dqkv, qkv, dout,
           constants, layout);
    launch(query_gradient_sm90_kernel<head_dim, masked>,
           {grid(shape.heads), gradient_threads, QueryStages<head_dim>::shared_bytes, context.stream}, dqkv, qkv, dout,
           constants, layout);
  });
}

}  // namespace

namespace attention {

void launch_sm90(const Context& context, const AttentionBackward& op, const QueryConstants* constants) {
  if (op.shape.head_dim == 64) return launch_hopper_gradients<64>(context, op, constants);
  launch_hopper_gradients<128>(context, op, constants);
}

}  // namespace attention
}  // namespace vqlm::cuda
