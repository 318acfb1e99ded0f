// The gradient of the member codebook, dU[g, q, :] += the sum of ds_nw h_ng over rows n and members w with q_g(w) = q.
//
// Written as a product: with t_g[q, n] = the sum of ds_nw over members w of n's cluster with q_g(w) = q,
//   dU[g] (Q, width) = t_g (Q, N) h_g (N, width).
// So neither the members' own gradients (V d floats: 2 GB at V = 128,000, d = 4,096) nor t (N G Q) ever exist in memory:
// a block owns a group g and every parts-th tile; for each tile it sums t_g (256, 64) in shared memory and multiplies.
// The sums go through a tile's members in the order of their codes (member_code_order.cu), so that those of a code follow each
// other: a thread adds 8 rows of them in registers, from loads of 16 bytes, and stores their sum once, rounded to bf16, where
// ldmatrix takes it. There are no atomics, and the order of all sums is fixed: a code's members, then rows, then tiles. Groups
// wider than 64 columns have 16 warps, and t_g serves 128 columns. The blocks' products, `parts` copies of the codebook, are
// added in order.
//
// Operations: the product 2 N Q d, no more than the 2 N m d of a product with the members where m is about Q (34 GFLOP at
// N 16,384, Q 256, d 4,096; 6 GFLOP at d 768); t takes N m G additions (0.26 G at G 64). Bytes: ds is read once for each 128
// columns of each group from the second-level cache (0.5 GB), h once, parts * Q d * 8 for the copies (34 MB).
//
// What bounds it is the number of instructions, by the machine code of nvcc 13.0 for sm_90a about 670 a warp and tile of 32
// rows and 250 members: 260 around the sums, 120 for each two members of a stretch, 105 of product. V 128,000, d 4,096,
// N 16,384, K 512: at G 64 768 tiles * 64 groups * 8 warps, 0.26 G warp instructions, 0.28 ms where 132 multiprocessors issue 4 a
// cycle of 1.8 GHz; at G 32, 16 warps of 530, 0.22 ms. A kernel that waits for a third of its time takes 0.4 ms. Not measured.
#include <algorithm>

#include "core/cuda/launch.h"
#include "core/cuda/member_tiles.h"
#include "core/cuda/packs.h"

namespace vqlm::cuda::members {
namespace {

constexpr int warp_codes = 32;
constexpr int max_codes = 256;  // codes are bytes
constexpr int code_warps = max_codes / warp_codes;
constexpr int row_chunks = tile_rows / 8;
constexpr int slice = 64;  // columns of a group that 8 warps sum
constexpr int slice_chunks = slice / 8;
constexpr int rows_of_thread = 8;
constexpr int in_flight = 2;  // members whose gradients a thread has under way

/// A block of 8 warps for each of its slices of columns: wider groups share what is summed for their codes by two.
__host__ __device__ constexpr int threads_for(int slices) {
  return slices * code_warps * warp_size;
}

__host__ __device__ constexpr int padded_codes(int codes_per_group) {
  return ceil_div(codes_per_group, warp_codes) * warp_codes;
}

constexpr std::size_t shared_bytes(int codes_per_group, int slices) {
  return static_cast<std::size_t>(padded_codes(codes_per_group) * tile_rows + slices * tile_rows * slice) *
         sizeof(bf16);
}

/// Starts copying columns [column, column + slices * slice) of group g of the tile's rows of h, a slice behind the other;
/// zeros outside.
template <bool aligned, int slices>
__device__ __forceinline__ void load_rows(bf16* h, const Problem& problem, const Tile& tile, int g, int column) {
  constexpr int chunks = slices * slice_chunks;
  const int left = problem.width - column;
  constexpr int step_rows = threads_for(slices) / chunks;
  const int first = static_cast<int>(threadIdx.x) / chunks, chunk = static_cast<int>(threadIdx.x) % chunks;
  bf16* const of_slice = h + chunk / slice_chunks * (tile_rows * slice);
#pragma unroll
  for (int begin = 0; begin < tile_rows; begin += step_rows) {
    if (begin >= tile.rows) break;
    const int r = begin + first;
    const bool valid = r < tile.rows && chunk * 8 < left;
    const bf16* const source = valid ? problem.h +
                                           static_cast<std::int64_t>(problem.order[tile.first_row + r]) * problem.d +
                                           g * problem.width + column + chunk * 8
                                     : problem.h;
    copy_chunk<aligned>(of_slice + chunk_offset<slice_chunks>(r, chunk % slice_chunks), source,
                        valid ? left - chunk * 8 : 0);
  }
}

/// t (padded codes, tile_rows), shared, = 0.
template <int threads>
__device__ __forceinline__ void clear(bf16* t, int codes) {
  uint4* const chunk = reinterpret_cast<uint4*>(t) + threadIdx.x;
  constexpr int steps = max_codes * row_chunks / threads;
  if (codes == max_codes) {
#pragma unroll
    for (int step = 0; step < steps; ++step) chunk[step * threads] = make_uint4(0, 0, 0, 0);
  } else {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x), step = 0; i < codes * row_chunks; i += threads, ++step) {
      chunk[step * threads] = make_uint4(0, 0, 0, 0);
    }
  }
}

/// t (codes, tile_rows), shared, = the sums of ds over the tile's members with each code, rounded to bf16; zero before, and
/// seen so by all after a barrier that this function has. The members, in the order of their codes, are cut into stretches;
/// 1 to 8 neighbouring threads, 8 rows each, sum one. A code belongs to the stretch in which it begins: those who find it
/// going on from the stretch before pass over it, and its owners go on behind their stretch's end.
template <int threads>
__device__ __forceinline__ void sum_codes(bf16* t, const Problem& problem, const Tile& tile, int g) {
  constexpr int log_threads = threads == 512 ? 9 : 8;
  static_assert(threads == 1 << log_threads);
  const int padded_rows = tile.padded_rows();
  const int log_lanes = padded_rows > 32 ? 3 : padded_rows > 16 ? 2 : padded_rows > 8 ? 1 : 0;
  const int lane = static_cast<int>(threadIdx.x) & ((1 << log_lanes) - 1);
  const int log_stretches = log_threads - log_lanes;
  // A multiple of in_flight, so that as many of the order are one access.
  const int length = ((tile.members + (in_flight << log_stretches) - 1) >> log_stretches) & -in_flight;
  int i = (static_cast<int>(threadIdx.x) >> log_lanes) * length;
  const int end = min(i + length, tile.members);
  const std::uint32_t* order = problem.code_order + code_order_begin(problem, tile.cluster, tile.first_member) +
                               static_cast<std::int64_t>(g) * code_order_pitch(tile.members) + i;
  const bf16* const ds = problem.ds + tile.offset + lane * rows_of_thread;

  uint2 member{};
  uint4 x[in_flight] = {};
  const auto load_gradients = [&] {
    x[0] = load8(ds + place_of(member.x) * padded_rows);
    x[1] = load8(ds + place_of(member.y) * padded_rows);
  };
  const bool busy = i < tile.members && lane * rows_of_thread < padded_rows;
  int code = -1;
  if (busy) {
    member = *reinterpret_cast<const uint2*>(order);
    if (i > 0) code = code_of(order[-1]);
    load_gradients();
  }
  bool own = false;
  float sum[rows_of_thread] = {};
  __syncthreads();  // t is zero
  while (busy && (own || i < end)) {
    const int codes[in_flight] = {code_of(member.x), code_of(member.y)};
    order += in_flight;
    member = *reinterpret_cast<const uint2*>(order);  // on its way while these are summed
#pragma unroll
    for (int j = 0; j < in_flight; ++j, ++i) {
      const bool begins = codes[j] != code;
      if (begins && own) {
        *reinterpret_cast<uint4*>(t + chunk_offset<row_chunks>(code, lane)) = make_uint4(
            pack_bf16(sum[0], sum[1]), pack_bf16(sum[2], sum[3]), pack_bf16(sum[4], sum[5]), pack_bf16(sum[6], sum[7]));
      }
      own = begins ? i < end : own;
      code = codes[j];
      float terms[rows_of_thread];
      unpack8(terms, x[j]);
#pragma unroll
      for (int k = 0; k < rows_of_thread; ++k) sum[k] = (begins ? 0.0f : sum[k]) + terms[k];
    }
    if (own || i < end) load_gradients();
  }
}

/// acc (32 codes, slice, of this warp) += t h. An operand's chunks of 8 lie where exclusive or puts them (chunk_offset), so
/// that a step of 2 chunks is the same bit in every lane's address.
__device__ __forceinline__ void multiply_tile(float (&acc)[2][8][4], const bf16* t, const bf16* h, int row_slabs,
                                              int column_pairs) {
  static_assert(row_chunks == slice_chunks);
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int at = chunk_offset<row_chunks>(lane % 16, lane / 16);
  for (int slab = 0; slab < row_slabs; ++slab) {
    unsigned a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) ldmatrix_x4(a[m], t + (at ^ 16 * slab) + m * 16 * tile_rows);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      if (pair >= column_pairs) continue;
      unsigned both[4];
      ldmatrix_x4_trans(both, h + (at ^ 16 * pair) + slab * 16 * slice);
      const unsigned left[2] = {both[0], both[1]}, right[2] = {both[2], both[3]};
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_bf16_16816(acc[m][2 * pair], a[m], left);
        mma_bf16_16816(acc[m][2 * pair + 1], a[m], right);
      }
    }
  }
}

/// The block's copy of dU[g, 32 codes from `code` on, column ..] = acc, or += acc after the first wave; a warp's stores fill
/// sectors of 32 bytes.
template <bool aligned>
__device__ __forceinline__ void store_part(const float (&acc)[2][8][4], const Problem& problem, int g, int code,
                                           int column, bool first_wave) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  float* const part = problem.partials + (static_cast<std::int64_t>(blockIdx.y) * problem.groups + g) *
                                             problem.codes_per_group * problem.width;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int q = code + 16 * m + half * 8 + lane / 4;
      if (q >= problem.codes_per_group) continue;
      float* const out = part + q * problem.width;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const int c = column + 8 * n + lane % 4 * 2;
        float2 x = make_float2(acc[m][n][2 * half], acc[m][n][2 * half + 1]);
        if constexpr (aligned) {
          if (c >= problem.width) continue;
          float2* const both = reinterpret_cast<float2*>(out + c);
          if (!first_wave) x = make_float2(both->x + x.x, both->y + x.y);
          *both = x;
        } else {
          if (c < problem.width) out[c] = first_wave ? x.x : out[c] + x.x;
          if (c + 1 < problem.width) out[c + 1] = first_wave ? x.y : out[c + 1] + x.y;
        }
      }
    }
  }
}

/// Blocks (group and its slices, part).
template <bool aligned, int slices>
__global__ void __launch_bounds__(threads_for(slices), 2 / slices)
    codebook_kernel(GridDependency dependency, Problem problem, int wave) {
  dependency.wait();
  constexpr int threads = threads_for(slices);
  const int shares = ceil_div(problem.width, slices * slice);  // of a group's columns
  const int g = static_cast<int>(blockIdx.x) / shares;
  const int column = static_cast<int>(blockIdx.x) % shares * (slices * slice);
  const int warp = static_cast<int>(threadIdx.x) / warp_size, code = warp % code_warps * warp_codes;
  const int own_column = column + warp / code_warps * slice;
  const int column_pairs = ceil_div(min(problem.width - own_column, slice), 16);
  const bool has_codes = code < problem.codes_per_group && column_pairs > 0;
  bf16* const t = dynamic_shared<bf16>();                                 // (padded codes, tile_rows)
  bf16* const h = t + padded_codes(problem.codes_per_group) * tile_rows;  // (slices, tile_rows, slice)
  bool has_sums = wave == 0;  // the first wave writes zeros, too; later ones only add
  float acc[2][8][4] = {};
  const std::int32_t tiles = problem.tile_begin[problem.clusters];
  for (std::int32_t index = static_cast<std::int32_t>(blockIdx.y); index < tiles; index += problem.parts) {
    const Tile tile = problem.tiles[index];
    if (tile.wave != wave) continue;
    has_sums = true;
    __syncthreads();  // shared memory may still be read from the tile before
    load_rows<aligned, slices>(h, problem, tile, g, column);
    cp_async_commit();
    clear<threads>(t, padded_codes(problem.codes_per_group));
    sum_codes<threads>(t, problem, tile, g);
    cp_async_wait<0>();
    __syncthreads();
    if (has_codes) {
      multiply_tile(acc, t + code * tile_rows, h + warp / code_warps * (tile_rows * slice), ceil_div(tile.rows, 16),
                    column_pairs);
    }
  }
  if (has_sums && has_codes) store_part<aligned>(acc, problem, g, code, own_column, wave == 0);
}

constexpr int add_threads = 256;
constexpr int copies_in_flight = 4;

/// dcodebook += the copies, in order; `pack` neighbours a thread.
template <int pack>
__global__ void __launch_bounds__(add_threads) add_parts_kernel(GridDependency dependency, Problem problem) {
  dependency.wait();
  const std::int64_t count = static_cast<std::int64_t>(problem.codes_per_group) * problem.d;
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * add_threads + threadIdx.x) * pack;
  if (i >= count) return;
  float sum[pack] = {}, total[pack];
  load_pack(total, problem.dcodebook + i);
  for (int first = 0; first < problem.parts; first += copies_in_flight) {
    float x[copies_in_flight][pack];
#pragma unroll
    for (int j = 0; j < copies_in_flight; ++j) {
      load_pack(x[j], problem.partials + min(first + j, problem.parts - 1) * count + i);
    }
#pragma unroll
    for (int j = 0; j < copies_in_flight; ++j) {
#pragma unroll
      for (int c = 0; c < pack; ++c) {
        if (first + j < problem.parts) sum[c] += x[j][c];
      }
    }
  }
#pragma unroll
  for (int c = 0; c < pack; ++c) total[c] += sum[c];
  store_pack(problem.dcodebook + i, total);
}

/// Slices of columns that a block sums.
int slices_of_block(int width) {
  return width > slice ? 2 : 1;
}

}  // namespace

int codebook_parts(const Context& context, int groups, int width) {
  // 16 warps of 128 registers run at once on a multiprocessor: blocks come in rounds of as many. The fewest parts that leave
  // at most a tenth of the rounds' places empty, or the best of what there is.
  const int slices = slices_of_block(width), blocks = groups * ceil_div(width, slices * slice);
  const int places = std::max(context.multiprocessors, 1) * (2 / slices);
  int best = 1;
  double most_used = 0;
  for (int parts = 1; parts <= 32 && most_used < 0.9; ++parts) {
    const double used = static_cast<double>(blocks * parts) / (ceil_div(blocks * parts, places) * places);
    if (used > most_used) best = parts, most_used = used;
  }
  return best;
}

void codebook_gradient(const Context& context, const Problem& problem, int wave, bool last) {
  const int slices = slices_of_block(problem.width);
  const dim3 blocks(static_cast<unsigned>(problem.groups * ceil_div(problem.width, slices * slice)),
                    static_cast<unsigned>(problem.parts));
  auto* const kernel = slices == 2 ? (problem.aligned ? codebook_kernel<true, 2> : codebook_kernel<false, 2>)
                                   : (problem.aligned ? codebook_kernel<true, 1> : codebook_kernel<false, 1>);
  launch(kernel,
         {blocks, static_cast<unsigned>(threads_for(slices)), shared_bytes(problem.codes_per_group, slices),
          context.stream},
         problem, wave);
  if (!last) return;
  const std::int64_t count = static_cast<std::int64_t>(problem.codes_per_group) * problem.d;
  const bool wide = rows_in_packs<4>(count, problem.partials, problem.dcodebook);
  launch(wide ? add_parts_kernel<4> : add_parts_kernel<1>,
         {static_cast<unsigned>(ceil_div(count, std::int64_t{add_threads} * (wide ? 4 : 1))), add_threads, 0,
          context.stream},
         problem);
}

}  // namespace vqlm::cuda::members
