// The schedule of the member kernels: clusters' rows cut into tiles, on the device, since only the device knows how many
// rows each cluster has. One block; K clusters are a few scans of 1,024: microseconds, not measured.
#include "core/cuda/launch.h"
#include "core/cuda/member_tiles.h"

namespace vqlm::cuda::members {
namespace {

constexpr int threads = 1024;

/// What the clusters before one take up.
struct Extent {
  std::int64_t tiles, scores;
};

__device__ __forceinline__ Extent operator+(const Extent& a, const Extent& b) {
  return {a.tiles + b.tiles, a.scores + b.scores};
}

__device__ __forceinline__ Extent inclusive_warp_scan(Extent x) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int distance = 1; distance < warp_size; distance *= 2) {
    const Extent before{__shfl_up_sync(full_mask, x.tiles, distance), __shfl_up_sync(full_mask, x.scores, distance)};
    if (lane >= distance) x = x + before;
  }
  return x;
}

/// The sum over the threads before this one; `total` becomes the sum over all.
__device__ Extent exclusive_block_scan(const Extent& x, Extent& total) {
  __shared__ std::int64_t warp_tiles[warp_size], warp_scores[warp_size];
  const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
  const Extent inclusive = inclusive_warp_scan(x);
  __syncthreads();  // the scratch may still be read from the call before
  if (lane == warp_size - 1) {
    warp_tiles[warp] = inclusive.tiles;
    warp_scores[warp] = inclusive.scores;
  }
  __syncthreads();
  const Extent of_lane{warp_tiles[lane], warp_scores[lane]};
  const Extent warps = inclusive_warp_scan(of_lane);
  const auto from = [](const Extent& e, int source) {
    return Extent{__shfl_sync(full_mask, e.tiles, source), __shfl_sync(full_mask, e.scores, source)};
  };
  total = from(warps, threads / warp_size - 1);
  const Extent through = from(warps, warp), own = from(of_lane, warp);
  return {through.tiles - own.tiles + inclusive.tiles - x.tiles,
          through.scores - own.scores + inclusive.scores - x.scores};
}

__global__ void __launch_bounds__(threads) plan_kernel(GridDependency dependency, Problem problem) {
  dependency.wait();
  Extent before{0, 0};
  for (int begin = 0; begin < problem.clusters; begin += threads) {
    const int k = begin + static_cast<int>(threadIdx.x);
    std::int32_t first_row = 0, rows = 0, first_member = 0, members = 0;
    if (k < problem.clusters) {
      first_row = problem.row_begin[k];
      rows = problem.row_begin[k + 1] - first_row;
      first_member = problem.member_begin[k];
      members = problem.member_begin[k + 1] - first_member;
      if (members < problem.fewest_members()) rows = 0;
    }
    const std::int64_t tiles = ceil_div(rows, tile_rows);
    const std::int64_t padded_rows = ceil_div(rows, 8) * 8;  // tile_rows is a multiple of 8
    Extent total{};
    const Extent own = before + exclusive_block_scan({tiles, members * padded_rows}, total);
    if (k < problem.clusters) problem.tile_begin[k] = static_cast<std::int32_t>(own.tiles);
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t row = t * tile_rows, offset = own.scores + members * row;
      problem.tiles[own.tiles + t] = {static_cast<std::int32_t>(first_row + row),
                                      static_cast<std::int32_t>(rows - row < tile_rows ? rows - row : tile_rows),
                                      first_member,
                                      members,
                                      k,
                                      static_cast<std::int32_t>(offset / problem.wave_scores),
                                      offset % problem.wave_scores};
    }
    before = before + total;
  }
  if (threadIdx.x == 0) problem.tile_begin[problem.clusters] = static_cast<std::int32_t>(before.tiles);
}

}  // namespace

void plan_tiles(const Context& context, const Problem& problem) {
  launch(plan_kernel, {1, threads, 0, context.stream}, problem);
}

}  // namespace vqlm::cuda::members
