// The gradient of members' own vectors, dU[w, :] += the sum of ds_nw h_n over the rows n of w's cluster.
//
// A block owns 64 members of a cluster and 128 columns: it multiplies ds (members, rows) with h (rows, columns) of the
// cluster's tiles in their order and adds the sum to its rows. Nobody else touches them, so there are no partial sums and
// no atomics; waves come one after the other.
//
// Operations 2 N m d (m: members of the row's cluster, averaged over rows). Bytes: 8 V d for the gradient where every
// cluster has rows, h once for each 64 members of its cluster and ds once for each 128 columns, both from the second-level
// cache: N m / 64 * 2 d and N m d / 64. V 50,257, d 768, N 16,384, m 196: 0.3 GB, floor 72 us at 4.3 TB/s; V 128,000, d
// 4,096, m 250: 4.2 GB, 1 ms. Not measured.
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
constexpr std::size_t shared_bytes = static_cast<std::size_t>(tile_rows) * (tile_members + slice) * sizeof(bf16);

/// Copies ds (member, row) of members [first, first + tile_members), then the slice of the tile's rows of h (row, column);
/// zeros outside. They are there after cp_async_wait and a barrier.
template <bool aligned>
__device__ __forceinline__ void load_tile(bf16* shared, const Problem& problem, const Tile& tile, int first,
                                          int column) {
  const int padded_rows = tile.padded_rows();
  for (int i = static_cast<int>(threadIdx.x); i < tile_members * row_chunks; i += threads) {
    const int w = i / row_chunks, chunk = i % row_chunks;
    const bool valid = first + w < tile.members && chunk * 8 < padded_rows;
    const std::int64_t at = tile.offset + static_cast<std::int64_t>(first + w) * padded_rows + chunk * 8;
    cp_async_16(shared + chunk_offset<row_chunks>(w, chunk), problem.ds + (valid ? at : 0), valid);
  }
  bf16* const rows = shared + tile_members * tile_rows;
  for (int i = static_cast<int>(threadIdx.x); i < tile_rows * slice_chunks; i += threads) {
    const int r = i / slice_chunks, chunk = i % slice_chunks, k = column + chunk * 8;
    const bool valid = r < tile.rows && k < problem.d;
    const std::int64_t at = valid ? static_cast<std::int64_t>(problem.order[tile.first_row + r]) * problem.d + k : 0;
    copy_chunk<aligned>(rows + chunk_offset<slice_chunks>(r, chunk), problem.h + at, valid ? problem.d - k : 0);
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

/// dU += acc; `members` of them, whose rows begin at out. A warp's store fills sectors of 32 bytes.
__device__ __forceinline__ void add_rows(float* out, const float (&acc)[4][4][4], int members, int column, int d) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int w = 16 * m + e / 2 * 8 + lane / 4, c = column + warp * warp_columns + 8 * n + 2 * (lane % 4) + e % 2;
        if (w < members && c < d) out[static_cast<std::int64_t>(w) * d + c] += acc[m][n][e];
      }
    }
  }
}

/// Blocks (cluster, part of its members, slice of columns).
template <bool aligned>
__global__ void __launch_bounds__(threads) own_vector_kernel(Problem problem, int wave) {
  const int k = static_cast<int>(blockIdx.x), column = static_cast<int>(blockIdx.z) * slice;
  const std::int32_t begin = problem.tile_begin[k], end = problem.tile_begin[k + 1];
  const std::int32_t first_member = problem.member_begin[k], members = problem.member_begin[k + 1] - first_member;
  bf16* const shared = dynamic_shared<bf16>();
  for (int first = static_cast<int>(blockIdx.y) * tile_members; begin < end && first < members;
       first += member_blocks * tile_members) {
    const int count = min(members - first, tile_members);
    float acc[4][4][4] = {};
    bool has_sums = false;
    for (std::int32_t t = begin; t < end; ++t) {
      const Tile tile = problem.tiles[t];
      if (tile.wave != wave) continue;
      has_sums = true;
      __syncthreads();  // the tile before may still be read
      load_tile<aligned>(shared, problem, tile, first, column);
      cp_async_commit();
      cp_async_wait<0>();
      __syncthreads();
      multiply_tile(acc, shared, ceil_div(tile.rows, 16), ceil_div(count, 16));
    }
    if (has_sums) {
      add_rows(problem.dcodebook + (static_cast<std::int64_t>(first_member) + first) * problem.d, acc, count, column,
               problem.d);
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
