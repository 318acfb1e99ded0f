// Gradients of h and of the tokens' biases from the stored ds of one wave.
//
// hidden_kernel: dh (rows, 128 of d) += ds U of one tile: the tile's members are the inner dimension, 64 at a time; only
// this slice of their vectors is gathered. Operations 2 N m d and bytes gathered as in member_scores.cu.
// bias_kernel: dbias_w += the sum of ds over the rows of w's cluster; 2 N m bytes. A warp owns a member, so that no two
// sums meet. Neither is measured on a GPU.
#include "core/cuda/launch.h"
#include "core/cuda/member_tiles.h"

namespace vqlm::cuda::members {
namespace {

constexpr int hidden_threads = 128;
constexpr int slice = 128;  // of d, for a block
constexpr int depth = 64;   // members in one stage
constexpr int stages = 3;
constexpr int row_chunks = tile_rows / 8, slice_chunks = slice / 8;
constexpr int stage_elements = depth * (tile_rows + slice);
constexpr int warp_columns = slice / (hidden_threads / warp_size);
// The sums pass through shared memory. Of the 8 columns that a thread takes from there, the first four lie in the first half of
// the row, the others in the second, so that the 16-byte loads of neighbouring threads are neighbours; halves and rows are set
// apart so that the 4 rows that a half warp stores at once lie in different banks.
constexpr int sum_half = slice / 2 + 4;
constexpr int sum_pitch = 2 * sum_half;
__device__ __forceinline__ int sum_offset(int row, int column) {
  return row * sum_pitch + column % 8 / 4 * sum_half + column / 8 * 4 + column % 4;
}
constexpr std::size_t hidden_shared = stages * stage_elements * sizeof(bf16) > tile_rows* sum_pitch * sizeof(float)
                                          ? stages* stage_elements * sizeof(bf16)
                                          : tile_rows* sum_pitch * sizeof(float);

/// Starts copying members [first, first + depth): ds (member, row), then their vectors' slice (member, column).
template <Vectors vectors, bool aligned>
__device__ __forceinline__ void load_stage(bf16* stage, const Problem& problem, const Tile& tile, int first,
                                           int column) {
  const int thread = static_cast<int>(threadIdx.x), padded_rows = tile.padded_rows();
#pragma unroll
  for (int i = thread; i < depth * row_chunks; i += hidden_threads) {
    const int w = i / row_chunks, chunk = i % row_chunks;
    const bool valid = first + w < tile.members && chunk * 8 < padded_rows;
    const std::int64_t at = tile.offset + static_cast<std::int64_t>(first + w) * padded_rows + chunk * 8;
    cp_async_16(stage + chunk_offset<row_chunks>(w, chunk), problem.ds + (valid ? at : 0), valid);
  }
  bf16* const vector_tile = stage + depth * tile_rows;
  constexpr int step = hidden_threads / slice_chunks;
  const int w = thread / slice_chunks, chunk = thread % slice_chunks;
  copy_vector_chunks<vectors, aligned, slice_chunks, step, depth / step>(
      vector_tile, problem, static_cast<std::int64_t>(tile.first_member) + first + w, tile.members - first - w, w,
      chunk, column + chunk * 8);
}

/// acc (64 rows, 32 columns of this warp) += the stage's product. row_slabs: groups of 16 rows that the tile has.
__device__ __forceinline__ void multiply_stage(float (&acc)[4][4][4], const bf16* stage, int row_slabs) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const bf16* const vectors = stage + depth * tile_rows;
#pragma unroll
  for (int k = 0; k < depth; k += 16) {
    unsigned u[2][4];  // each: two neighbouring groups of 8 columns
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      ldmatrix_x4_trans(u[pair], vectors + chunk_offset<slice_chunks>(
                                               k + lane % 16, warp * (warp_columns / 8) + 2 * pair + lane / 16));
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      if (m >= row_slabs) continue;
      unsigned ds[4];
      ldmatrix_x4_trans(ds, stage + chunk_offset<row_chunks>(k + lane / 16 * 8 + lane % 8, 2 * m + lane / 8 % 2));
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const unsigned left[2] = {u[pair][0], u[pair][1]}, right[2] = {u[pair][2], u[pair][3]};
        mma_bf16_16816(acc[m][2 * pair], ds, left);
        mma_bf16_16816(acc[m][2 * pair + 1], ds, right);
      }
    }
  }
}

/// dh += sums (64, slice) in shared memory, at sum_offset.
template <bool aligned>
__device__ __forceinline__ void add_rows(const Problem& problem, const Tile& tile, const float* sums, int column) {
  for (int i = static_cast<int>(threadIdx.x); i < tile.rows * slice_chunks; i += hidden_threads) {
    const int r = i / slice_chunks, c = i % slice_chunks * 8;
    if (column + c >= problem.d) continue;
    bf16* const out =
        problem.dh + static_cast<std::int64_t>(problem.order[tile.first_row + r]) * problem.d + column + c;
    if constexpr (aligned) {
      float x[8];
      load8(x, out);
#pragma unroll
      for (int j = 0; j < 8; j += 4) {
        const float4 sum = *reinterpret_cast<const float4*>(sums + sum_offset(r, c + j));
        x[j] += sum.x, x[j + 1] += sum.y, x[j + 2] += sum.z, x[j + 3] += sum.w;
      }
      store8(out, x);
    } else {
      for (int j = 0; j < 8 && column + c + j < problem.d; ++j) {
        out[j] = __float2bfloat16_rn(__bfloat162float(out[j]) + sums[sum_offset(r, c + j)]);
      }
    }
  }
}

template <Vectors vectors, bool aligned>
__global__ void __launch_bounds__(hidden_threads) hidden_kernel(GridDependency dependency, Problem problem, int wave) {
  dependency.wait();
  const Tile tile = problem.tile(blockIdx.x, wave);
  if (tile.rows == 0) return;
  bf16* const shared = dynamic_shared<bf16>();
  const int column = static_cast<int>(blockIdx.y) * slice;
  const int steps = ceil_div(tile.members, depth), row_slabs = ceil_div(tile.rows, 16);
  float acc[4][4][4] = {};
  for (int s = 0; s < stages - 1; ++s) {
    if (s < steps) load_stage<vectors, aligned>(shared + s * stage_elements, problem, tile, s * depth, column);
    cp_async_commit();
  }
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<stages - 2>();
    __syncthreads();  // this stage has arrived, and the one that is filled next is no longer read
    const int next = step + stages - 1;
    if (next < steps)
      load_stage<vectors, aligned>(shared + next % stages * stage_elements, problem, tile, next * depth, column);
    cp_async_commit();
    multiply_stage(acc, shared + step % stages * stage_elements, row_slabs);
  }
  __syncthreads();  // the stages give way to the sums
  float* const sums = dynamic_shared<float>();
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  float* const own = sums + sum_offset(lane / 4, warp * warp_columns + 2 * (lane % 4));
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // 8 columns on are 4 places on
        *reinterpret_cast<float2*>(own + (16 * m + 8 * half) * sum_pitch + 4 * n) =
            make_float2(acc[m][n][2 * half], acc[m][n][2 * half + 1]);
      }
    }
  }
  __syncthreads();
  add_rows<aligned>(problem, tile, sums, column);
}

constexpr int bias_threads = 256;
constexpr int bias_blocks = 8;  // share a cluster's members

__global__ void __launch_bounds__(bias_threads) bias_kernel(GridDependency dependency, Problem problem, int wave) {
  dependency.wait();
  const int k = static_cast<int>(blockIdx.x), warps = bias_threads / warp_size;
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const std::int32_t begin = problem.tile_begin[k], end = problem.tile_begin[k + 1];
  if (begin == end) return;
  const std::int32_t first_member = problem.member_begin[k], members = problem.member_begin[k + 1] - first_member;
  for (int w = static_cast<int>(blockIdx.y) * warps + warp; w < members; w += bias_blocks * warps) {
    float sum = 0;
    for (std::int32_t t = begin; t < end; ++t) {
      const Tile tile = problem.tiles[t];
      if (tile.wave != wave) continue;
      const int padded_rows = tile.padded_rows();  // ds of padding is 0
      const bf16* const ds = problem.ds + tile.offset + static_cast<std::int64_t>(w) * padded_rows;
      if (2 * lane < padded_rows) {
        const float2 both = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(ds)[lane]);
        sum += both.x + both.y;
      }
    }
    sum = warp_sum(sum);
    if (lane == 0) problem.dbias[problem.members[first_member + w]] += sum;
  }
}

}  // namespace

void tile_gradients(const Context& context, const Problem& problem, int wave) {
  const dim3 blocks(static_cast<unsigned>(problem.max_tiles), static_cast<unsigned>(ceil_div(problem.d, slice)));
  launch(instance_for(problem, hidden_kernel<Vectors::coded, true>, hidden_kernel<Vectors::coded, false>,
                      hidden_kernel<Vectors::own, true>, hidden_kernel<Vectors::own, false>),
         {blocks, hidden_threads, hidden_shared, context.stream}, problem, wave);
  launch(bias_kernel, {dim3(static_cast<unsigned>(problem.clusters), bias_blocks), bias_threads, 0, context.stream},
         problem, wave);
}

}  // namespace vqlm::cuda::members
