// Scores of a cluster's members and their softmax, tile by tile.
//
// score_kernel: S^T (members, rows) = U H^T + b of a tile of at most 64 rows, 128 members at a time. Members' vectors are
// gathered from the member codebook (Q d bf16, at home in the second-level cache) chunk by chunk of d, or read from rows
// of their own (2 V d bytes from memory where every cluster has rows: 77 MB and 1 GB at the sizes below). Members lie along
// the 16 rows of the tensor core's product and rows of h along its 8 columns, so that a cluster with few rows in the
// batch wastes little: work is done in multiples of 8 rows and 16 members.
// softmax_kernel: a block per tile; nll, and ds = scale * (softmax - [target]) in bf16 for the gradients. Where members are
// cut over ranks it ends in statistics, or begins with the log sum over all parts.
//
// Operations 2 N m d (m: members of the row's cluster, averaged over rows). Bytes: each tile gathers its members' vectors
// once, tiles * m * 2 d from the second-level cache; scores 4 N m written and read, ds 2 N m written.
//   V 50,257, d 768, N 16,384, K = Q 256, G 32:   5 GFLOP, 512 tiles, 0.15 GB gathered
//   V 128,000, d 4,096, N 16,384, K 512, Q 256, G 32: 34 GFLOP, 768 tiles (32 rows in a cluster), 1.6 GB gathered: at
//   5 TB/s from the second-level cache 0.3 ms, more than the products' 0.1 ms. Floor not measured on a GPU.
#include <cfloat>

#include "core/cuda/launch.h"
#include "core/cuda/member_tiles.h"

namespace vqlm::cuda::members {
namespace {

constexpr int score_threads = 128;
constexpr int tile_members = 128;
constexpr int depth = 64;  // of d in one stage
constexpr int stages = 3;
constexpr int chunks = depth / 8;
constexpr int stage_elements = (tile_members + tile_rows) * depth;
constexpr int warp_members = tile_members / (score_threads / warp_size);
// A block loops over its tile's member chunks from blockIdx.y on: most clusters have fewer than 8 * 128 members.
constexpr int member_blocks = 8;

/// What a thread copies in every stage: one chunk of each 16th row of both tiles.
struct Source {
  static constexpr int step = score_threads / chunks;
  std::int64_t member;                  // its first one, in member order
  int members;                          // from its first one to the cluster's last
  std::int32_t rows[tile_rows / step];  // in h, or -1

  __device__ __forceinline__ Source(const Problem& problem, const Tile& tile, int first_member) {
    const int first = static_cast<int>(threadIdx.x) / chunks;
    member = static_cast<std::int64_t>(tile.first_member) + first_member + first;
    members = tile.members - first_member - first;
#pragma unroll
    for (int i = 0; i < tile_rows / step; ++i) {
      const int r = first + i * step;
      rows[i] = r < tile.rows ? problem.order[tile.first_row + r] : -1;
    }
  }

  template <Vectors vectors, bool aligned>
  __device__ __forceinline__ void load(bf16* stage, const Problem& problem, int k_begin) const {
    const int first = static_cast<int>(threadIdx.x) / chunks, chunk = static_cast<int>(threadIdx.x) % chunks;
    const int k = k_begin + chunk * 8;
    copy_vector_chunks<vectors, aligned, chunks, step, tile_members / step>(stage, problem, member, members, first,
                                                                            chunk, k);
    bf16* const h_tile = stage + tile_members * depth;
#pragma unroll
    for (int i = 0; i < tile_rows / step; ++i) {
      const bool valid = rows[i] >= 0 && k < problem.d;
      copy_chunk<aligned>(h_tile + chunk_offset<chunks>(first + i * step, chunk),
                          problem.h + (valid ? static_cast<std::int64_t>(rows[i]) * problem.d + k : 0),
                          valid ? problem.d - k : 0);
    }
  }
};

/// acc (32 members of this warp, 64 rows) += the stage's product. row_pairs: pairs of 8 rows that the tile has.
__device__ __forceinline__ void multiply_stage(float (&acc)[2][8][4], const bf16* stage, int row_pairs) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const bf16* const h_tile = stage + tile_members * depth;
#pragma unroll
  for (int k = 0; k < chunks; k += 2) {
    unsigned u[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      ldmatrix_x4(u[m], stage + chunk_offset<chunks>(warp * warp_members + 16 * m + lane % 16, k + lane / 16));
    }
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      if (pair >= row_pairs) continue;
      unsigned both[4];
      ldmatrix_x4(both, h_tile + chunk_offset<chunks>(16 * pair + lane / 16 * 8 + lane % 8, k + lane / 8 % 2));
      const unsigned left[2] = {both[0], both[1]}, right[2] = {both[2], both[3]};
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_bf16_16816(acc[m][2 * pair], u[m], left);
        mma_bf16_16816(acc[m][2 * pair + 1], u[m], right);
      }
    }
  }
}

/// Adds the members' biases and writes the warp's scores.
__device__ __forceinline__ void store_scores(const float (&acc)[2][8][4], const Problem& problem, const Tile& tile,
                                             int first_member) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const int padded_rows = tile.padded_rows();
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int w = first_member + warp * warp_members + 16 * m + 8 * half + lane / 4;
      if (w >= tile.members) continue;
      const float bias = problem.bias[problem.members[tile.first_member + w]];
      float* const out = problem.scores + tile.offset + static_cast<std::int64_t>(w) * padded_rows;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const int r = 8 * n + 2 * (lane % 4);
        if (r >= padded_rows) continue;
        *reinterpret_cast<float2*>(out + r) = make_float2(acc[m][n][2 * half] + bias, acc[m][n][2 * half + 1] + bias);
      }
    }
  }
}

template <Vectors vectors, bool aligned>
__global__ void __launch_bounds__(score_threads) score_kernel(GridDependency dependency, Problem problem, int wave) {
  dependency.wait();
  const Tile tile = problem.tile(blockIdx.x, wave);
  bf16* const shared = dynamic_shared<bf16>();
  const int steps = ceil_div(problem.d, depth), row_pairs = ceil_div(tile.rows, 16);
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  for (int first = static_cast<int>(blockIdx.y) * tile_members; tile.rows > 0 && first < tile.members;
       first += member_blocks * tile_members) {
    const Source source(problem, tile, first);
    float acc[2][8][4] = {};
    __syncthreads();  // the stages may still be read from the chunk before
    for (int s = 0; s < stages - 1; ++s) {
      if (s < steps) source.load<vectors, aligned>(shared + s * stage_elements, problem, s * depth);
      cp_async_commit();
    }
    for (int step = 0; step < steps; ++step) {
      cp_async_wait<stages - 2>();
      __syncthreads();  // this stage has arrived, and the one that is filled next is no longer read
      const int next = step + stages - 1;
      if (next < steps) source.load<vectors, aligned>(shared + next % stages * stage_elements, problem, next * depth);
      cp_async_commit();
      if (first + warp * warp_members < tile.members) {
        multiply_stage(acc, shared + step % stages * stage_elements, row_pairs);
      }
    }
    store_scores(acc, problem, tile, first);
  }
}

constexpr int softmax_threads = 512;

/// Maximum and sum of exp(x - maximum) of what a thread has seen. It begins with the lowest number, not -infinity, whose
/// difference with itself would be NaN.
struct RunningSum {
  float maximum = -FLT_MAX, sum = 0;

  __device__ __forceinline__ void add(float x) {
    if (x > maximum) {
      sum = sum * exp_approx(maximum - x) + 1.0f;
      maximum = x;
    } else {
      sum += exp_approx(x - maximum);  // NaN comes here and stays
    }
  }
};

/// Threads (slice, row): neighbouring threads read neighbouring rows of one member, slices share the members.
__global__ void __launch_bounds__(softmax_threads)
    softmax_kernel(GridDependency dependency, Problem problem, int wave) {
  dependency.wait();
  __shared__ float maxima[softmax_threads], sums[softmax_threads], row_lse[tile_rows];
  __shared__ int row_target[tile_rows];
  const Tile tile = problem.tile(blockIdx.x, wave);
  if (tile.rows == 0) return;
  const int thread = static_cast<int>(threadIdx.x), padded_rows = tile.padded_rows();
  const int slices = softmax_threads / padded_rows, r = thread % padded_rows, slice = thread / padded_rows;
  const float* const scores = problem.scores + tile.offset + r;
  RunningSum running;
  if (slice < slices && problem.lse == nullptr) {
    for (int w = slice; w < tile.members; w += slices) running.add(scores[static_cast<std::int64_t>(w) * padded_rows]);
  }
  maxima[thread] = running.maximum;
  sums[thread] = running.sum;
  __syncthreads();
  if (thread < tile.rows) {
    float maximum = maxima[thread], sum = 0;
    for (int s = 1; s < slices; ++s) maximum = fmaxf(maximum, maxima[s * padded_rows + thread]);
    for (int s = 0; s < slices; ++s) {
      sum += sums[s * padded_rows + thread] * exp_approx(maxima[s * padded_rows + thread] - maximum);
    }
    const float log_sum = logf(sum);
    const std::int32_t n = problem.order[tile.first_row + thread];
    const int y = problem.position_of_token[problem.target[n]] - tile.first_member;  // below 0: not in this part
    const float target_score =
        y < 0 || problem.lse != nullptr ? 0.0f : scores[static_cast<std::int64_t>(y) * padded_rows];
    if (problem.statistics != nullptr) {
      float* const out = problem.statistics + 3 * static_cast<std::int64_t>(n);
      out[0] = maximum, out[1] = sum, out[2] = target_score;
    } else if (problem.lse == nullptr) {
      // maximum - s_y first: both may be large, and their difference is exact where they are close.
      problem.nll[n] += (maximum - target_score) + log_sum;
    }
    row_lse[thread] = problem.lse != nullptr ? problem.lse[n] : maximum + log_sum;
    row_target[thread] = y;
  }
  if (problem.dh == nullptr) return;
  __syncthreads();
  if (slice >= slices) return;
  const bool valid = r < tile.rows;
  const float lse = valid ? row_lse[r] : 0.0f;
  const int y = valid ? row_target[r] : -1;
  bf16* const ds = problem.ds + tile.offset + r;
  for (int w = slice; w < tile.members; w += slices) {
    const std::int64_t at = static_cast<std::int64_t>(w) * padded_rows;
    const float softmax = exp_approx(scores[at] - lse) - (w == y ? 1.0f : 0.0f);
    ds[at] = __float2bfloat16_rn(valid ? problem.scale * softmax : 0.0f);
  }
}

}  // namespace

void score_tiles(const Context& context, const Problem& problem, int wave) {
  const auto tiles = static_cast<unsigned>(problem.max_tiles);
  launch(instance_for(problem, score_kernel<Vectors::coded, true>, score_kernel<Vectors::coded, false>,
                      score_kernel<Vectors::own, true>, score_kernel<Vectors::own, false>),
         {dim3(tiles, member_blocks), score_threads, stages * stage_elements * sizeof(bf16), context.stream}, problem,
         wave);
  launch(softmax_kernel, {tiles, softmax_threads, 0, context.stream}, problem, wave);
}

}  // namespace vqlm::cuda::members
