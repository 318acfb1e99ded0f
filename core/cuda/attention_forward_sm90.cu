// Causal attention forward for Hopper, in FlashAttention-3's shape (arXiv 2407.08608): a block keeps 128 queries. One thread
// of a producer warp has tiles of 128 keys and values brought to shared memory by bulk tensor copies, in two stages; two
// warpgroups of 64 queries each consume them by wgmma. The scores of the next tile and the product of this one's
// probabilities with its values are issued together; the next tile's softmax runs while the second is still in flight, and
// the two warpgroups take turns at issuing, so that one's softmax falls into the other's products. Scores and sums live in
// registers, fp32; probabilities are rounded to bf16 and are operand a from registers. Tiles are taken from the diagonal
// backwards: only the first needs the causal mask, and in it every row sees itself, so maxima are finite from there on.
//
// Work as in attention_forward.cu. Model, head_dim 128, one tile of 128 x 128 x 128 for both warpgroups: two products of 4.2
// MFLOP, 1,024 cycles each at 4,096 FLOP a cycle and SM; shared memory for operand b, read once a warpgroup, and for q:
// (2 x 2 x 32 + 32) KiB = 1,280 of its cycles of 128 bytes; exponentials, 16 a cycle and SM: 1,024 cycles; so all must overlap,
// and the two products' 2,048 cycles bound the tile. Not measured: no GPU has run it; the host executor has (tests/simt).
//
//   head_dim                     64       128
//   registers at the start      168       168     24 for the producers and 240 for the consumers after setmaxnreg;
//                                                 no spills, no serialised wgmma (nvcc 13.0 -Xptxas -v)
//   shared memory, KiB           81       161
//   blocks of 12 warps on an SM   1         1     by registers
//
// Compiled for sm_90a alone. Head widths 64 and 128; windows and documents by the same masks as the portable kernel.
#include <cstdint>

#include "core/cuda/attention_sm90.h"
#include "core/cuda/attention_tiles_sm90.h"
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"

namespace vqlm::cuda {
namespace {

using namespace attention;

constexpr int consumers = 2;  // warpgroups
constexpr int hopper_threads = (1 + consumers) * warpgroup_threads;
constexpr int tile = consumers * warpgroup_rows;  // queries of a block and keys of a tile: the diagonal is one tile
constexpr int stages = 2;
constexpr int producer_registers = 24, consumer_registers = 240;  // 128 x 24 + 256 x 240 <= 65,536

/// A block's shared memory, and the barriers of each stage: full, when a tile's bytes are there; empty, when all consumer
/// warps are done with it.
template <int head_dim>
struct Stages {
  static constexpr int tile_elements = tile * head_dim;
  static constexpr unsigned tile_bytes = tile_elements * sizeof(Bf16);
  static constexpr std::size_t bytes = 1024 + (1 + 2 * stages) * tile_bytes + (1 + 4 * stages) * sizeof(Mbarrier);

  __device__ __forceinline__ Stages() : q(dynamic_shared_1024<Bf16>()) {
    q_full = reinterpret_cast<Mbarrier*>(q + (1 + 2 * stages) * tile_elements);
  }
  __device__ __forceinline__ Bf16* k(int stage) const { return q + (1 + stage) * tile_elements; }
  __device__ __forceinline__ Bf16* v(int stage) const { return q + (1 + stages + stage) * tile_elements; }
  __device__ __forceinline__ Mbarrier* k_full(int stage) const { return q_full + 1 + stage; }
  __device__ __forceinline__ Mbarrier* v_full(int stage) const { return q_full + 1 + stages + stage; }
  __device__ __forceinline__ Mbarrier* k_empty(int stage) const { return q_full + 1 + 2 * stages + stage; }
  __device__ __forceinline__ Mbarrier* v_empty(int stage) const { return q_full + 1 + 3 * stages + stage; }

  __device__ __forceinline__ void init_barriers() const {
    mbarrier_init(q_full, 1);
    for (int stage = 0; stage < stages; ++stage) {
      mbarrier_init(k_full(stage), 1);
      mbarrier_init(v_full(stage), 1);
      mbarrier_init(k_empty(stage), consumers * 4);
      mbarrier_init(v_empty(stage), consumers * 4);
    }
    mbarrier_init_fence();
  }

  Bf16* q;  // (head_dim / 64, tile, 64), as are k and v
  Mbarrier* q_full;
};

/// Which tiles a block takes: `count` of them, `last` (the diagonal) first.
struct Tiles {
  int last, count;
};

/// One thread: q, then keys and values in the order in which consumers want them.
template <int head_dim>
__device__ __forceinline__ void produce(const Stages<head_dim>& shared, const CUtensorMap& qkv, const Layout& layout,
                                        Tiles tiles, int h, int b) {
  const int kv = layout.heads + h / (layout.heads / layout.kv_heads);
  const auto load = [&](Bf16* to, Mbarrier* full, int head_in_row, int begin) {
    mbarrier_arrive_expect_tx(full, Stages<head_dim>::tile_bytes);
    load_head_tile<tile, tile, head_dim>(to, qkv, full, head_in_row * head_dim, begin, b);
  };
  load(shared.q, shared.q_full, h, tiles.last * tile);
  for (int i = 0; i <= tiles.count; ++i) {
    if (i < tiles.count) {
      const int stage = i % stages;
      mbarrier_wait(shared.k_empty(stage), (i / stages + 1) % 2);
      load(shared.k(stage), shared.k_full(stage), kv, (tiles.last - i) * tile);
    }
    if (i > 0) {
      const int stage = (i - 1) % stages;
      mbarrier_wait(shared.v_empty(stage), ((i - 1) / stages + 1) % 2);
      load(shared.v(stage), shared.v_full(stage), kv + layout.kv_heads, (tiles.last - i + 1) * tile);
    }
  }
}

/// Largest raw score and sum of exponentials so far of this thread's two rows; the sum covers this thread's columns only.
struct RowSoftmax {
  float maximum[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};
};

/// Raw scores become 2^(scale_log2 * (score - maximum)); `ratio` is what sums over earlier tiles have to be multiplied by.
__device__ __forceinline__ void softmax_tile(RowSoftmax& softmax, float (&scores)[tile / 8][4], float (&ratio)[2],
                                             float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float maximum = softmax.maximum[half];
#pragma unroll
    for (int n = 0; n < tile / 8; ++n) {
      maximum = fmaxf(maximum, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(full_mask, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(full_mask, maximum, 2));
    ratio[half] = exp2_approx((softmax.maximum[half] - maximum) * scale_log2);
    const float shift = maximum * scale_log2;
    float sum = softmax.sum[half] * ratio[half];
#pragma unroll
    for (int n = 0; n < tile / 8; ++n) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        scores[n][e] = exp2_approx(fmaf(scores[n][e], scale_log2, -shift));
        sum += scores[n][e];
      }
    }
    softmax.maximum[half] = maximum;
    softmax.sum[half] = sum;
  }
}

/// The other warpgroup issues its products while this one computes: barrier 1 + g lets warpgroup g issue.
__device__ __forceinline__ void begin_turn(int group, int i) {
  if (group > 0 || i > 1) named_barrier_sync(1 + group, consumers * warpgroup_threads);
}
__device__ __forceinline__ void end_turn(int group, bool last) {
  if (group == 0 || !last) named_barrier_arrive(2 - group, consumers * warpgroup_threads);
}

/// One warpgroup of 64 queries.
template <int head_dim, bool masked>
__device__ __forceinline__ void consume(const Stages<head_dim>& shared, const CUtensorMap& out_map, float* lse,
                                        const Layout& layout, Tiles tiles, int group, int h, int b) {
  const int warp = static_cast<int>(threadIdx.x) % warpgroup_threads / warp_size;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int warp_row = group * warpgroup_rows + 16 * warp, first_query = tiles.last * tile + warp_row;
  const auto release = [&](Mbarrier* empty) {
    if (lane == 0) mbarrier_arrive(empty);
  };
  const auto descriptor = [](const Bf16* at) { return tile_descriptor<tile>(at); };
  const MatrixDescriptor q = descriptor(shared.q + group * warpgroup_rows * panel_columns);
  float scores[tile / 8][4], out[head_dim / 8][4] = {}, ratio[2];
  unsigned p[tile / 16][4];
  RowSoftmax softmax;
  const float scale_log2 = layout.scale * log2_e;
  int limits[1][2];
  if (masked) row_limits(limits, first_query, layout.seq_len, [&](int t) { return layout.first_key(b, t); });

  mbarrier_wait(shared.q_full, 0);
  mbarrier_wait(shared.k_full(0), 0);
  wgmma_fence(scores);
  issue_transposed<head_dim, tile, tile>(scores, q, descriptor(shared.k(0)));
  wgmma_commit();
  wgmma_wait<0>(scores);
  release(shared.k_empty(0));
  mask_future<KeyAxis::columns>(scores, warp_row);
  if (masked) mask_columns<Seen::from_limit>(scores, limits[0], tiles.last * tile);
  softmax_tile(softmax, scores, ratio, scale_log2);
  pack_operand(p, scores);
#pragma unroll 1
  for (int i = 1; i < tiles.count; ++i) {
    const int stage = i % stages, before = (i - 1) % stages;
    mbarrier_wait(shared.k_full(stage), i / stages % 2);
    begin_turn(group, i);
    wgmma_fence(scores);
    issue_transposed<head_dim, tile, tile>(scores, q, descriptor(shared.k(stage)));
    wgmma_commit();
    mbarrier_wait(shared.v_full(before), (i - 1) / stages % 2);
    wgmma_fence(out);
    issue_product(out, p, descriptor(shared.v(before)));
    wgmma_commit();
    end_turn(group, i + 1 == tiles.count);
    wgmma_wait<1>(scores);
    release(shared.k_empty(stage));
    if (masked) mask_columns<Seen::from_limit>(scores, limits[0], (tiles.last - i) * tile);
    softmax_tile(softmax, scores, ratio, scale_log2);
    wgmma_wait<0>(out);
    release(shared.v_empty(before));
    scale_rows(out, ratio[0], ratio[1]);
    pack_operand(p, scores);
  }
  const int last = (tiles.count - 1) % stages;
  mbarrier_wait(shared.v_full(last), (tiles.count - 1) / stages % 2);
  wgmma_fence(out);
  issue_product(out, p, descriptor(shared.v(last)));
  wgmma_commit();
  wgmma_wait<0>(out);

  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = softmax.sum[half];
    sum += __shfl_xor_sync(full_mask, sum, 1);
    sum += __shfl_xor_sync(full_mask, sum, 2);
    factor[half] = 1.0f / sum;
    const int query = first_query + 8 * half + lane / 4;
    if (lane % 4 == 0 && query < layout.seq_len) lse[query] = softmax.maximum[half] * layout.scale + logf(sum);
  }
  scale_rows(out, factor[0], factor[1]);
  named_barrier_sync(1 + consumers + group, warpgroup_threads);  // all four warps are done with q
  store_warp_rows<tile, head_dim>(out_map, shared.q + warp_row * panel_columns, out, h * head_dim, first_query, b);
  bulk_store_wait<0>();
}

/// Block (x, h, b): the x-th query tile from the end of query head h of sequence b; the longest rows of tiles start first.
template <int head_dim, bool masked>
__global__ void __launch_bounds__(hopper_threads, 1)
    attention_forward_sm90_kernel(GridDependency dependency, const __grid_constant__ CUtensorMap out, float* lse,
                                  const __grid_constant__ CUtensorMap qkv, Layout layout) {
  const Stages<head_dim> shared;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  if (threadIdx.x == 0) shared.init_barriers();
  dependency.wait();
  __syncthreads();
  Tiles tiles;
  tiles.last = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  tiles.count = tiles.last + 1 - (masked ? layout.first_key(b, tiles.last * tile) / tile : 0);
  const int group = static_cast<int>(threadIdx.x) / warpgroup_threads;
  if (group == 0) {
    set_registers_down<producer_registers>();
    if (threadIdx.x == 0) produce<head_dim>(shared, qkv, layout, tiles, h, b);
  } else {
    set_registers_up<consumer_registers>();
    consume<head_dim, masked>(shared, out, lse + (static_cast<std::int64_t>(b) * layout.heads + h) * layout.seq_len,
                              layout, tiles, group - 1, h, b);
  }
}

template <int head_dim>
void launch_hopper(const Context& context, const AttentionForward& op) {
  const AttentionShape& shape = op.shape;
  const Layout layout(shape, op.documents);
  const CUtensorMap qkv = sequence_map(op.qkv, shape, layout.row, tile);
  const CUtensorMap out = sequence_map(op.out, shape, layout.out_row, 16);
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(shape.seq_len, tile)),
                  static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.batch));
  with_mask(layout.masked(), [&](auto masked) {
    launch(attention_forward_sm90_kernel<head_dim, decltype(masked)::value>,
           {grid, hopper_threads, Stages<head_dim>::bytes, context.stream}, out, op.lse.f32(), qkv, layout);
  });
}

}  // namespace

namespace attention {

void launch_sm90(const Context& context, const AttentionForward& op) {
  if (op.shape.head_dim == 64) return launch_hopper<64>(context, op);
  launch_hopper<128>(context, op);
}

}  // namespace attention
}  // namespace vqlm::cuda
