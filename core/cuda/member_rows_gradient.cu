// The gradient of members' own vectors, dU[w, :] += the sum of ds_nw h_n over the rows n of w's cluster.
//
// A block owns 64 members of a cluster and 128 columns: it multiplies ds (members, rows) with h (rows, columns) of the
// cluster's tiles in their order and adds the sum to its rows. The next tile is on its way while one is multiplied. Nobody else
// touches the rows, so there are no partial sums and no atomics; waves come one after the other.
//
// Operations 2 N m d (m: members of the row's cluster, averaged over rows). Bytes: 8 V d for the gradient where every
// cluster has rows, 16 an access and 4 accesses of a thread under way; h once for each 64 members of its cluster and ds once
// for each 128 columns, both from the second-level cache: N m / 64 * 2 d and N m d / 64. V 50,257, d 768, N 16,384, m 196:
// 0.3 GB, floor 72 us at 4.3 TB/s; V 128,000, d 4,096, m 250: 4.2 GB, 1 ms. Not measured.
#include "core/cuda/launch.h"
#include "core/cuda/member_tiles.h"

namespace vqlm::cuda::members {
namespace {

constexpr int threads = 128;
constexpr int tile_members = 64;
constexpr int slice = 128;  // of d, for a block
constexpr int row_chunks = tile_rows / 8, slice_chunks = slice / 8;
constexpr int warp_columns = slice / (threads / warp_size);
// A block loops over its cluster's members from blockIdx.y on: most clusters have fewer than 8 * 64.
constexpr int member_blocks = 8;
constexpr int stage_elements = tile_rows * (tile_members + slice);
constexpr int stages = 2;
constexpr std::size_t shared_bytes = stages * stage_elements * sizeof(bf16);

/// Copies ds (member, row) of members [first, first + tile_members), then the slice of the tile's rows of h (row, column);
/// zeros outside. They are there after cp_async_wait and a barrier.
template <bool aligned>
__device__ __forceinline__ void load_tile(bf16* shared, const Problem& problem, const Tile& tile, int first,
                                          int column) {
  const int thread = static_cast<int>(threadIdx.x), padded_rows = tile.padded_rows();
  constexpr int member_step = threads / row_chunks, row_step = threads / slice_chunks;
  static_assert(member_step % 8 == 0 && row_step % 8 == 0);  // so chunk_offset mixes the same bits at every step
  const int first_w = thread / row_chunks, row_chunk = thread % row_chunks;
  const bf16* const ds = problem.ds + tile.offset + row_chunk * 8;
  bf16* const members = shared + chunk_offset<row_chunks>(first_w, row_chunk);
#pragma unroll
  for (int begin = 0; begin < tile_members; begin += member_step) {
    const int w = begin + first_w;
    const bool valid = first + w < tile.members && row_chunk * 8 < padded_rows;
    cp_async_16(members + begin * tile_rows, ds + (valid ? static_cast<std::int64_t>(first + w) * padded_rows : 0),
                valid);
  }
  const int first_r = thread / slice_chunks, chunk = thread % slice_chunks, k = column + chunk * 8;
  bf16* const rows = shared + tile_members * tile_rows + chunk_offset<slice_chunks>(first_r, chunk);
  std::int32_t of_row[tile_rows / row_step];  // all on their way before one is needed
#pragma unroll
  for (int i = 0; i < tile_rows / row_step; ++i) {
    const int r = first_r + i * row_step;
    of_row[i] = r < tile.rows && k < problem.d ? problem.order[tile.first_row + r] : -1;
  }
#pragma unroll
  for (int i = 0; i < tile_rows / row_step; ++i) {
    const bool valid = of_row[i] >= 0;
    copy_chunk<aligned>(rows + i * row_step * slice,
                        problem.h + (valid ? static_cast<std::int64_t>(of_row[i]) * problem.d + k : 0),
                        valid ? problem.d - k : 0);
  }
}

/// acc (64 members, 32 columns of this warp) += the tile's product. Slabs: groups of 16 that there are.
__device__ __forceinline__ void multiply_tile(float (&acc)[4][4][4], const bf16* shared, int row_slabs,
                                              int member_slabs) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const bf16* const rows = shared + tile_members * tile_rows;
  for (int slab = 0; slab < row_slabs; ++slab) {
    unsigned x[2][4];  // each: two neighbouring groups of 8 columns
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      ldmatrix_x4_trans(x[pair], rows + chunk_offset<slice_chunks>(16 * slab + lane % 16,
                                                                   warp * (warp_columns / 8) + 2 * pair + lane / 16));
    }
#pragma unroll
    for (int m = 0; m < tile_members / 16; ++m) {
      if (m >= member_slabs) continue;
      unsigned ds[4];
      ldmatrix_x4(ds, shared + chunk_offset<row_chunks>(16 * m + lane % 16, 2 * slab + lane / 16));
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const unsigned left[2] = {x[pair][0], x[pair][1]}, right[2] = {x[pair][2], x[pair][3]};
        mma_bf16_16816(acc[m][2 * pair], ds, left);
        mma_bf16_16816(acc[m][2 * pair + 1], ds, right);
      }
    }
  }
}

/// dU += acc; `members` of them, whose rows begin at out. Where addresses allow, neighbouring lanes, which have 2 columns of
/// the same two rows, exchange so that each has 4 of one, and all of 16 members are read before they are written.
template <bool aligned>
__device__ __forceinline__ void add_rows(float* out, const float (&acc)[4][4][4], int members, int column, int d) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const int of_warp = column + warp * warp_columns;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    if constexpr (aligned) {
      const bool odd = lane % 2 != 0;
      const int w = 16 * m + (odd ? 8 : 0) + lane / 4, c = of_warp + lane % 4 / 2 * 4;
      float* const row = out + static_cast<std::int64_t>(w) * d + c;
      float4 x[4] = {};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        if (w < members && c + 8 * n < d) x[n] = *reinterpret_cast<const float4*>(row + 8 * n);
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float(&sum)[4] = acc[m][n];
        const float other0 = __shfl_xor_sync(full_mask, odd ? sum[0] : sum[2], 1);
        const float other1 = __shfl_xor_sync(full_mask, odd ? sum[1] : sum[3], 1);
        if (w >= members || c + 8 * n >= d) continue;
        x[n].x += odd ? other0 : sum[0];
        x[n].y += odd ? other1 : sum[1];
        x[n].z += odd ? sum[2] : other0;
        x[n].w += odd ? sum[3] : other1;
        *reinterpret_cast<float4*>(row + 8 * n) = x[n];
      }
    } else {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int w = 16 * m + e / 2 * 8 + lane / 4, c = of_warp + 8 * n + 2 * (lane % 4) + e % 2;
          if (w < members && c < d) out[static_cast<std::int64_t>(w) * d + c] += acc[m][n][e];
        }
      }
    }
  }
}

/// Blocks (cluster, part of its members, slice of columns).
template <bool aligned>
__global__ void __launch_bounds__(threads, 4) own_vector_kernel(GridDependency dependency, Problem problem, int wave) {
  dependency.wait();
  const int k = static_cast<int>(blockIdx.x), column = static_cast<int>(blockIdx.z) * slice;
  const std::int32_t begin = problem.tile_begin[k], end = problem.tile_begin[k + 1];
  const std::int32_t first_member = problem.member_begin[k], members = problem.member_begin[k + 1] - first_member;
  bf16* const shared = dynamic_shared<bf16>();
  const auto next_tile = [&](std::int32_t t) {  // of this wave, from t on
    while (t < end && problem.tiles[t].wave != wave) ++t;
    return t;
  };
  for (int first = static_cast<int>(blockIdx.y) * tile_members; begin < end && first < members;
       first += member_blocks * tile_members) {
    const int count = min(members - first, tile_members);
    float acc[4][4][4] = {};
    std::int32_t coming = next_tile(begin);
    const bool has_sums = coming < end;
    int rows = 0;  // of the tile that arrives
    for (int stage = 0; has_sums; stage ^= 1) {
      cp_async_wait<0>();
      __syncthreads();  // a tile has arrived, and the stage of the one before is no longer read
      const int arrived = rows;
      rows = 0;
      if (coming < end) {
        const Tile tile = problem.tiles[coming];
        load_tile<aligned>(shared + stage * stage_elements, problem, tile, first, column);
        rows = tile.rows;
        coming = next_tile(coming + 1);
      }
      cp_async_commit();
      multiply_tile(acc, shared + (stage ^ 1) * stage_elements, ceil_div(arrived, 16), ceil_div(count, 16));
      if (rows == 0) break;
    }
    if (has_sums) {
      add_rows<aligned>(problem.dcodebook + (static_cast<std::int64_t>(first_member) + first) * problem.d, acc, count,
                        column, problem.d);
    }
  }
}

}  // namespace

void own_vector_gradient(const Context& context, const Problem& problem, int wave) {
  const dim3 blocks(static_cast<unsigned>(problem.clusters), member_blocks,
                    static_cast<unsigned>(ceil_div(problem.d, slice)));
  launch(problem.aligned ? own_vector_kernel<true> : own_vector_kernel<false>,
         {blocks, threads, shared_bytes, context.stream}, problem, wave);
}

}  // namespace vqlm::cuda::members
