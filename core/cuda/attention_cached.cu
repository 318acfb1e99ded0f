// Attention of new rows to the keys and values of a cache (B, kv_heads, capacity, head_dim).
//
// One new row (decoding) is bound by memory: 4 bytes for each number of the past positions' keys and values, which meet 4
// operations of each query head that shares them; B = 8, 8 key/value heads of 128, 4,096 positions: 134 MB, floor 31 us at
// 4.3 TB/s; not measured. A block takes one key/value head, up to 8 of its query heads and a part of the positions
// (flash-decoding): its threads read 16 bytes of a key and of a value at a time, once for all its query heads. Parts that
// end with their own maximum and sum are combined by a second kernel, in a fixed order. The first part of a prompt
// (past = 0) is attention_forward's; later parts run as so many single rows, which read the cache from the second-level
// cache again and again: right for every T, quick for few rows.
#include "core/cuda/attention_tiles.h"
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/attention.h"

namespace vqlm::cuda {
namespace {

using attention::Bf16;

constexpr int threads = 128;

// Positions that a part should have at least: with fewer, the parts' results cost as much traffic as what they read.
constexpr std::int64_t least_keys_of_part = 128;

struct Cached {
  Bf16* out;             // (B, T, heads * head_dim)
  Bf16 *keys, *values;   // (B, kv_heads, capacity, head_dim)
  const Bf16* qkv;       // (B, T, row)
  float* part_out;       // workspace, (B T, heads, parts, head_dim): not yet divided by the sum
  float2* part_softmax;  // workspace, (B T, heads, parts): maximum (base 2) and sum
  std::int64_t seq_len, past, capacity, row;
  int heads, kv_heads;
  int parts, keys_of_part;
  const std::int32_t* documents;  // beginnings (B, document_stride), or null
  std::int64_t document_stride;
  std::int64_t window;  // of positions that a row sees; all where it is the longest
  float scale_log2;     // of scores, for softmax in base 2
};

/// Copies the new rows' keys and values to their positions, 8 numbers a thread.
template <int head_dim>
__global__ void __launch_bounds__(threads) append_kernel(GridDependency dependency, Cached p, std::int64_t packs) {
  dependency.wait();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= packs) return;
  constexpr int head_packs = head_dim / 8;
  const int pack = static_cast<int>(i % head_packs) * 8;
  const int head = static_cast<int>(i / head_packs % (2 * p.kv_heads)), kv = head % p.kv_heads;
  const std::int64_t r = i / head_packs / (2 * p.kv_heads), b = r / p.seq_len;
  const uint4 words = load8(p.qkv + r * p.row + std::int64_t{p.heads + head} * head_dim + pack);
  Bf16* const cache = head < p.kv_heads ? p.keys : p.values;
  const std::int64_t position = p.past + r % p.seq_len;
  store_16(cache + ((b * p.kv_heads + kv) * p.capacity + position) * head_dim + pack, words);
}

/// Softmax in base 2 of the keys that `head_dim / 8` neighbouring threads have met, for `group` query heads; each thread
/// holds 8 columns of the sum of values.
template <int group>
struct Running {
  float maximum[group], sum[group], out[group][8];
};

/// Meets keys [begin, end) of a head. The block's warps take turns, and within a warp every head_dim / 8 threads a key.
template <int head_dim, int group>
__device__ __forceinline__ void meet_keys(Running<group>& running, const float (&q)[group][8], const Bf16* keys,
                                          const Bf16* values, std::int64_t begin, std::int64_t end) {
  constexpr int lanes = head_dim / 8, step = threads / lanes;
  const int thread = static_cast<int>(threadIdx.x), in_warp = thread / lanes % (warp_size / lanes);
  // The loop is the same for all threads of a warp, which shuffle together.
  for (std::int64_t first = begin + thread / warp_size * (warp_size / lanes); first < end; first += step) {
    const std::int64_t at = (first + in_warp) * head_dim + thread % lanes * 8;
    const bool valid = first + in_warp < end;
    float k[8] = {}, v[8] = {};
    if (valid) {
      load8(k, keys + at);
      load8(v, values + at);
    }
#pragma unroll
    for (int h = 0; h < group; ++h) {
      float score = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) score += q[h][i] * k[i];
#pragma unroll
      for (int distance = lanes / 2; distance > 0; distance /= 2) score += __shfl_xor_sync(full_mask, score, distance);
      if (!valid) continue;
      const float maximum = fmaxf(running.maximum[h], score);
      const float kept = exp2_approx(running.maximum[h] - maximum), weight = exp2_approx(score - maximum);
      running.maximum[h] = maximum;
      running.sum[h] = running.sum[h] * kept + weight;
#pragma unroll
      for (int i = 0; i < 8; ++i) running.out[h][i] = running.out[h][i] * kept + weight * v[i];
    }
  }
}

/// Block (x, y): part x % parts of the positions for row x / parts of qkv, and the y-th `group` of query heads.
template <int head_dim, int group>
__global__ void __launch_bounds__(threads) decode_kernel(GridDependency dependency, Cached p) {
  dependency.wait();
  constexpr int lanes = head_dim / 8, step = threads / lanes;
  const int thread = static_cast<int>(threadIdx.x), column = thread % lanes * 8;
  const std::int64_t r = blockIdx.x / p.parts, b = r / p.seq_len;
  const int part = static_cast<int>(blockIdx.x % p.parts);
  const int first_head = static_cast<int>(blockIdx.y) * group, kv = first_head / (p.heads / p.kv_heads);
  // Parts count from the first key that a row of this call sees.
  const std::int64_t position = p.past + r % p.seq_len, origin = max(std::int64_t{0}, p.past - p.window + 1);
  const std::int64_t from = origin + std::int64_t{part} * p.keys_of_part;
  std::int64_t begin = max(from, position - p.window + 1);
  if (p.documents != nullptr) begin = max(begin, std::int64_t{p.documents[b * p.document_stride + position]});
  const std::int64_t end = min(from + p.keys_of_part, position + 1);

  float q[group][8];
  Running<group> running{};
#pragma unroll
  for (int h = 0; h < group; ++h) {
    running.maximum[h] = -INFINITY;
    load8(q[h], p.qkv + r * p.row + std::int64_t{first_head + h} * head_dim + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) q[h][i] *= p.scale_log2;
  }
  const std::int64_t cache = (b * p.kv_heads + kv) * p.capacity * head_dim;
  meet_keys<head_dim, group>(running, q, p.keys + cache, p.values + cache, begin, end);

  // Over the block's keys: every thread adds up one column at a time.
  float* const shared_out = dynamic_shared<float>();                   // (step, group, head_dim)
  float* const shared_maximum = shared_out + step * group * head_dim;  // (step, group)
  float* const shared_sum = shared_maximum + step * group;
#pragma unroll
  for (int h = 0; h < group; ++h) {
    const int at = thread / lanes * group + h;
    store_pack(shared_out + at * head_dim + column, running.out[h]);
    if (column != 0) continue;  // all threads of a key have the same
    shared_maximum[at] = running.maximum[h];
    shared_sum[at] = running.sum[h];
  }
  __syncthreads();
  for (int i = thread; i < group * head_dim; i += threads) {
    const int h = i / head_dim;
    float maximum = -INFINITY, sum = 0, out = 0;
    for (int k = 0; k < step; ++k) maximum = fmaxf(maximum, shared_maximum[k * group + h]);
    for (int k = 0; k < step; ++k) {
      const float top = shared_maximum[k * group + h];
      const float weight = top == -INFINITY ? 0.0f : exp2_approx(top - maximum);  // met no key
      sum += weight * shared_sum[k * group + h];
      out += weight * shared_out[k * group * head_dim + i];
    }
    const std::int64_t head = r * p.heads + first_head + h;
    if (p.parts == 1) {
      p.out[head * head_dim + i % head_dim] = from_float<Bf16>(out / sum);
    } else {
      p.part_out[(head * p.parts + part) * head_dim + i % head_dim] = out;
      if (i % head_dim == 0) p.part_softmax[head * p.parts + part] = make_float2(maximum, sum);
    }
  }
}

/// Block: one query head of one row; a thread combines the parts of one column.
template <int head_dim>
__global__ void __launch_bounds__(head_dim) combine_kernel(GridDependency dependency, Cached p) {
  dependency.wait();
  const std::int64_t head = blockIdx.x, first = head * p.parts;
  const int column = static_cast<int>(threadIdx.x);
  float maximum = -INFINITY, sum = 0, out = 0;
  for (int part = 0; part < p.parts; ++part) maximum = fmaxf(maximum, p.part_softmax[first + part].x);
  for (int part = 0; part < p.parts; ++part) {
    const float2 softmax = p.part_softmax[first + part];
    const float weight = softmax.x == -INFINITY ? 0.0f : exp2_approx(softmax.x - maximum);
    sum += weight * softmax.y;
    out += weight * p.part_out[(first + part) * head_dim + column];
  }
  p.out[head * head_dim + column] = from_float<Bf16>(out / sum);
}

/// Calls run(std::integral_constant<int, n>) for the largest number of query heads of a block that divides the group.
template <class Run>
void with_heads_of_block(int group, Run&& run) {
  if (group % 8 == 0) return run(std::integral_constant<int, 8>{});
  if (group % 4 == 0) return run(std::integral_constant<int, 4>{});
  if (group % 2 == 0) return run(std::integral_constant<int, 2>{});
  run(std::integral_constant<int, 1>{});
}

template <int head_dim, int group>
void launch_decode(const Context& context, Cached& p, std::int64_t rows) {
  const int head_blocks = p.heads / group;
  const std::int64_t longest = p.past + p.seq_len - std::max<std::int64_t>(0, p.past - p.window + 1);
  // Two blocks for each multiprocessor keep the memory busy.
  const std::int64_t wanted = ceil_div<std::int64_t>(2 * std::max(context.multiprocessors, 1), rows * head_blocks);
  const std::int64_t most = ceil_div(longest, least_keys_of_part);
  const std::int64_t keys_of_part = ceil_div(longest, std::clamp<std::int64_t>(wanted, 1, most));
  p.keys_of_part = static_cast<int>(keys_of_part);
  p.parts = static_cast<int>(ceil_div(longest, keys_of_part));
  if (p.parts > 1) {
    const std::int64_t softmaxes = rows * p.heads * p.parts;
    p.part_softmax = static_cast<float2*>(
        context.workspace->get(static_cast<std::size_t>(softmaxes) * (sizeof(float2) + head_dim * sizeof(float))));
    p.part_out = reinterpret_cast<float*>(p.part_softmax + softmaxes);
  }
  constexpr std::size_t shared = threads / (head_dim / 8) * group * (head_dim + 2) * sizeof(float);
  launch(decode_kernel<head_dim, group>,
         {dim3(static_cast<unsigned>(rows * p.parts), static_cast<unsigned>(head_blocks)), threads, shared,
          context.stream},
         p);
  if (p.parts > 1) {
    launch(combine_kernel<head_dim>, {static_cast<unsigned>(rows * p.heads), head_dim, 0, context.stream}, p);
  }
}

bool aligned(const Tensor& x) {
  return reinterpret_cast<std::uintptr_t>(x.data()) % 16 == 0;
}

}  // namespace

template <>
void run(const Context& context, const AttentionCached& op) {
  const AttentionShape& shape = op.shape;
  const std::int64_t rows = shape.batch * shape.seq_len;
  VQLM_ASSERT(aligned(op.keys) && aligned(op.values) && aligned(op.qkv));
  attention::with_head_dim(shape.head_dim, [&](auto dim) {
    constexpr int head_dim = decltype(dim)::value;
    if (rows == 0) return;
    Cached p{};
    p.out = bf16(op.out);
    p.keys = bf16(op.keys);
    p.values = bf16(op.values);
    p.qkv = bf16(op.qkv);
    p.seq_len = shape.seq_len;
    p.past = op.past;
    p.capacity = op.keys.extent(2);
    p.row = shape.row();
    p.heads = shape.heads;
    p.kv_heads = shape.kv_heads;
    p.scale_log2 =
        shape.scale > 0 ? attention::log2_e * shape.scale : attention::log2_e / std::sqrt(static_cast<float>(head_dim));
    p.documents = op.documents.i32();
    p.document_stride = op.documents ? op.documents.extent(2) : 0;
    p.window = shape.window > 0 ? shape.window : p.past + p.seq_len;
    const std::int64_t packs = rows * 2 * shape.kv_heads * (head_dim / 8);
    launch(append_kernel<head_dim>,
           {static_cast<unsigned>(ceil_div<std::int64_t>(packs, threads)), threads, 0, context.stream}, p, packs);
    if (op.past == 0 && shape.seq_len > 1) {
      const std::int64_t statistics = rows * shape.heads;
      const Tensor lse(context.workspace->get(static_cast<std::size_t>(statistics) * sizeof(float)), DType::f32,
                       {shape.batch, shape.heads, shape.seq_len});
      run(context,
          AttentionForward{.out = op.out, .lse = lse, .qkv = op.qkv, .shape = shape, .documents = op.documents});
      return;
    }
    with_heads_of_block(shape.heads / shape.kv_heads,
                        [&](auto group) { launch_decode<head_dim, decltype(group)::value>(context, p, rows); });
  });
}

}  // namespace vqlm::cuda
