// The gradient of the member codebook, dU[g, q, :] += the sum of ds_nw h_ng over rows n and members w with q_g(w) = q.
//
// Written as a product: with t_g[q, n] = the sum of ds_nw over members w of n's cluster with q_g(w) = q,
//   dU[g] (Q, width) = t_g (Q, N) h_g (N, width).
// So neither the members' own gradients (V d floats: 2 GB at V = 128,000, d = 4,096) nor t (N G Q) ever exist in memory:
// a block owns a group g and every parts-th tile; for each tile it sums t_g (256, 64) in shared memory and multiplies.
// A warp owns 32 codes: it alone adds to their sums, member after member, and its lanes own the rows; there are no
// atomics, and the order of all sums is fixed. The blocks' products, `parts` copies of the codebook, are added in order.
//
// Operations: the product 2 N Q d, no more than the 2 N m d of a product with the members where m is about Q (34 GFLOP at
// N 16,384, Q 256, d 4,096; 6 GFLOP at d 768); t takes N m G additions (0.13 G, 0.1 G), 64 of them in a warp's 12 or so
// instructions. Bytes: ds is read once for each 64 columns of each group from the second-level cache (0.5 GB and 0.2 GB), h
// once, parts * Q d * 8 for the copies (75 MB and 27 MB). Estimate 0.3 ms and 0.1 ms on an H200; not measured.
#include "core/cuda/launch.h"
#include "core/cuda/member_tiles.h"

namespace vqlm::cuda::members {
namespace {

constexpr int threads = 256;
constexpr int warp_codes = 32;
constexpr int max_codes = threads / warp_size * warp_codes;
static_assert(max_codes == 256, "codes are bytes");
constexpr int depth = 64;  // members in one stage
constexpr int row_chunks = tile_rows / 8;
constexpr int slice = 64;  // columns of a group that a block sums
constexpr int slice_chunks = slice / 8;
// Rows of t are set apart so that lanes of 4 codes and 8 columns, an operand's shape, read 32 different banks.
constexpr int t_pitch = tile_rows + 8;

/// Dynamic shared memory of a block.
struct Shared {
  float* t;             // (warps in use * 32, t_pitch)
  bf16* h;              // (tile_rows, slice)
  bf16* ds;             // 2 stages of (depth, tile_rows)
  std::uint8_t* codes;  // 2 stages of (depth)

  __device__ __forceinline__ explicit Shared(int codes_per_group) {
    t = dynamic_shared<float>();
    h = reinterpret_cast<bf16*>(t + ceil_div(codes_per_group, warp_codes) * warp_codes * t_pitch);
    ds = h + tile_rows * slice;
    codes = reinterpret_cast<std::uint8_t*>(ds + 2 * depth * tile_rows);
  }
  static std::size_t bytes(int codes_per_group) {
    return static_cast<std::size_t>(ceil_div(codes_per_group, warp_codes) * warp_codes * t_pitch) * sizeof(float) +
           (tile_rows * slice + 2 * depth * tile_rows) * sizeof(bf16) + 2 * depth;
  }
};

/// Starts copying columns [column, column + slice) of group g of the tile's rows of h; zeros outside.
template <bool aligned>
__device__ __forceinline__ void load_rows(bf16* h, const Problem& problem, const Tile& tile, int g, int column) {
  const int left = problem.width - column;
  for (int i = static_cast<int>(threadIdx.x); i < tile_rows * slice_chunks; i += threads) {
    const int r = i / slice_chunks, chunk = i % slice_chunks;
    const bool valid = r < tile.rows && chunk * 8 < left;
    const bf16* const source = valid ? problem.h +
                                           static_cast<std::int64_t>(problem.order[tile.first_row + r]) * problem.d +
                                           g * problem.width + column + chunk * 8
                                     : problem.h;
    copy_chunk<aligned>(h + chunk_offset<slice_chunks>(r, chunk), source, valid ? left - chunk * 8 : 0);
  }
}

/// Starts copying ds (member, row) of members [first, first + depth), zeros outside.
__device__ __forceinline__ void load_members(bf16* ds, const Problem& problem, const Tile& tile, int first) {
  const int thread = static_cast<int>(threadIdx.x), padded_rows = tile.padded_rows();
  for (int i = thread; i < depth * row_chunks; i += threads) {
    const int w = i / row_chunks, chunk = i % row_chunks;
    const bool valid = first + w < tile.members && chunk * 8 < padded_rows;
    const std::int64_t at = tile.offset + static_cast<std::int64_t>(first + w) * padded_rows + chunk * 8;
    cp_async_16(ds + w * tile_rows + chunk * 8, problem.ds + (valid ? at : 0), valid);
  }
}

/// This thread's code, in group g, of the stage of members [first, first + depth): bytes G apart, too small for
/// asynchronous copies. Read before a stage's sums and written to shared memory after them, it does not hold them up.
__device__ __forceinline__ std::uint8_t load_code(const Problem& problem, const Tile& tile, int g, int first) {
  const int w = first + static_cast<int>(threadIdx.x);
  if (static_cast<int>(threadIdx.x) >= depth || w >= tile.members) return 0;
  return problem.codes[static_cast<std::int64_t>(tile.first_member + w) * problem.groups + g];
}

/// t[q_g(w)] += ds of member w, for the members of a stage whose codes are this warp's. The next member is read before
/// this one's sum is written: the compiler may not exchange the two, and latency is all that this loop costs.
__device__ __forceinline__ void add_members(float* t, const bf16* ds, const std::uint8_t* codes, int count) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  for (int begin = 0; begin < count; begin += warp_size) {
    const bool own = begin + lane < count && codes[begin + lane] / warp_codes == warp;
    unsigned left = __ballot_sync(full_mask, own);
    const auto row_of = [&](__nv_bfloat162& x) {  // of t, for the lowest member left
      const int w = begin + (left == 0 ? 0 : __ffs(static_cast<int>(left)) - 1);
      x = reinterpret_cast<const __nv_bfloat162*>(ds + w * tile_rows)[lane];
      return codes[w] * t_pitch;
    };
    __nv_bfloat162 next;
    int next_row = row_of(next);
    while (left != 0) {
      const float2 x = __bfloat1622float2(next);
      float2* const sum = reinterpret_cast<float2*>(t + next_row) + lane;
      left &= left - 1;
      next_row = row_of(next);
      *sum = make_float2(sum->x + x.x, sum->y + x.y);
    }
  }
}

/// acc (32 codes of this warp, slice) += t h, t rounded to bf16.
__device__ __forceinline__ void multiply_tile(float (&acc)[2][8][4], const float* t, const bf16* h, int row_slabs,
                                              int column_pairs) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  for (int slab = 0; slab < row_slabs; ++slab) {
    unsigned a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const int q = warp * warp_codes + 16 * m + part % 2 * 8 + lane / 4;
        const float2 x = *reinterpret_cast<const float2*>(t + q * t_pitch + 16 * slab + part / 2 * 8 + lane % 4 * 2);
        a[m][part] = pack_bf16(x.x, x.y);
      }
    }
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      if (pair >= column_pairs) continue;
      unsigned both[4];
      ldmatrix_x4_trans(both, h + chunk_offset<slice_chunks>(16 * slab + lane % 16, 2 * pair + lane / 16));
      const unsigned left[2] = {both[0], both[1]}, right[2] = {both[2], both[3]};
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_bf16_16816(acc[m][2 * pair], a[m], left);
        mma_bf16_16816(acc[m][2 * pair + 1], a[m], right);
      }
    }
  }
}

/// The block's copy of dU[g, :, column ..] = acc, or += acc after the first wave.
__device__ __forceinline__ void store_part(const float (&acc)[2][8][4], const Problem& problem, int g, int column,
                                           bool first_wave) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  float* const part = problem.partials + (static_cast<std::int64_t>(blockIdx.y) * problem.groups + g) *
                                             problem.codes_per_group * problem.width;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int q = warp * warp_codes + 16 * m + e / 2 * 8 + lane / 4, c = column + 8 * n + lane % 4 * 2 + e % 2;
        if (q >= problem.codes_per_group || c >= problem.width) continue;
        float* const out = part + static_cast<std::int64_t>(q) * problem.width + c;
        *out = first_wave ? acc[m][n][e] : *out + acc[m][n][e];
      }
    }
  }
}

/// Blocks (group and slice, part).
template <bool aligned>
__global__ void __launch_bounds__(threads) codebook_kernel(Problem problem, int wave) {
  const Shared shared(problem.codes_per_group);
  const int slices = ceil_div(problem.width, slice);
  const int g = static_cast<int>(blockIdx.x) / slices, column = static_cast<int>(blockIdx.x) % slices * slice;
  const int column_pairs = ceil_div(min(problem.width - column, slice), 16);
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const bool has_codes = warp * warp_codes < problem.codes_per_group;
  const bool stages_code = static_cast<int>(threadIdx.x) < depth;
  bool has_sums = wave == 0;  // the first wave writes zeros, too; later ones only add
  float acc[2][8][4] = {};
  const std::int32_t tiles = problem.tile_begin[problem.clusters];
  for (std::int32_t index = static_cast<std::int32_t>(blockIdx.y); index < tiles; index += problem.parts) {
    const Tile tile = problem.tiles[index];
    if (tile.wave != wave) continue;
    has_sums = true;
    __syncthreads();  // shared memory may still be read from the tile before
    load_rows<aligned>(shared.h, problem, tile, g, column);
    load_members(shared.ds, problem, tile, 0);
    cp_async_commit();
    if (stages_code) shared.codes[threadIdx.x] = load_code(problem, tile, g, 0);
    if (has_codes) {
      float4* const own = reinterpret_cast<float4*>(shared.t + warp * warp_codes * t_pitch);
      for (int i = lane; i < warp_codes * t_pitch / 4; i += warp_size) own[i] = make_float4(0, 0, 0, 0);
      __syncwarp();
    }
    int slot = 0;
    for (int first = 0; first < tile.members; first += depth, slot ^= 1) {
      cp_async_wait<0>();
      __syncthreads();  // this stage has arrived, and the other is no longer read
      if (first + depth < tile.members) {
        load_members(shared.ds + (slot ^ 1) * depth * tile_rows, problem, tile, first + depth);
      }
      cp_async_commit();
      const std::uint8_t next_code = load_code(problem, tile, g, first + depth);
      if (has_codes) {
        add_members(shared.t, shared.ds + slot * depth * tile_rows, shared.codes + slot * depth,
                    min(depth, tile.members - first));
      }
      if (stages_code) shared.codes[(slot ^ 1) * depth + static_cast<int>(threadIdx.x)] = next_code;
    }
    if (has_codes) {
      __syncwarp();  // lanes own rows above, and read their neighbours' rows below
      multiply_tile(acc, shared.t, shared.h, ceil_div(tile.rows, 16), column_pairs);
    }
  }
  if (has_sums) store_part(acc, problem, g, column, wave == 0);
}

constexpr int add_threads = 256;

__global__ void __launch_bounds__(add_threads) add_parts_kernel(Problem problem) {
  const std::int64_t count = static_cast<std::int64_t>(problem.codes_per_group) * problem.d;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * add_threads + threadIdx.x;
  if (i >= count) return;
  float sum = 0;
  for (int part = 0; part < problem.parts; ++part) sum += problem.partials[part * count + i];
  problem.dcodebook[i] += sum;
}

}  // namespace

int codebook_parts(const Context& context, int groups, int width) {
  // Two blocks fit a multiprocessor with 228 KB of shared memory; twice as many level out unequal tiles.
  const int blocks = groups * ceil_div(width, slice), wanted = 4 * context.multiprocessors;
  const int parts = ceil_div(wanted, blocks);
  return parts < 1 ? 1 : (parts > 32 ? 32 : parts);
}

void codebook_gradient(const Context& context, const Problem& problem, int wave, bool last) {
  const dim3 blocks(static_cast<unsigned>(problem.groups * ceil_div(problem.width, slice)),
                    static_cast<unsigned>(problem.parts));
  launch(problem.aligned ? codebook_kernel<true> : codebook_kernel<false>,
         {blocks, threads, Shared::bytes(problem.codes_per_group), context.stream}, problem, wave);
  if (!last) return;
  const std::int64_t count = static_cast<std::int64_t>(problem.codes_per_group) * problem.d;
  launch(add_parts_kernel,
         {static_cast<unsigned>(ceil_div(count, std::int64_t{add_threads})), add_threads, 0, context.stream}, problem);
}

}  // namespace vqlm::cuda::members
