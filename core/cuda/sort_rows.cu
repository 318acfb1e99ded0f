// A stable radix sort of row numbers, least significant digit first, 8 bits of the key a pass. A pass counts the digits of each
// tile of rows, adds the counts up in the order (digit, tile), and moves each row to its place; within a tile a row's rank
// among its digit comes from ballots of its warp, so nothing depends on the order of atomics.
//
// Bytes a pass: 4 N for the row numbers read and written, 4 N of keys gathered twice from L2, counts in L2; about 60 integer
// operations a row. N = 16,384, V = 50,257 (2 passes): 0.7 MB in all, 0.2 us at 4.3 TB/s, so the 6 launches decide (about 15 us,
// 10 in a graph); not measured.
#include "core/cuda/sort_rows.h"

#include <algorithm>
#include <bit>

#include "core/cuda/device_utils.h"
#include "core/cuda/launch.h"

namespace vqlm::cuda {
namespace {

constexpr int digit_bits = 8;
constexpr int digits = 1 << digit_bits;
constexpr int warps = 8;
constexpr int threads = warps * warp_size;
constexpr int rounds = 8;  // rows of each lane
constexpr int rows_per_warp = rounds * warp_size;
constexpr std::int64_t rows_per_tile = warps * rows_per_warp;
static_assert(threads == digits);  // a thread for each digit

/// One pass's input: row i of the order so far, or i itself where there is none yet.
struct Pass {
  const std::int32_t* order;  // null in the first pass
  const std::int32_t* keys;
  std::int64_t rows;
  int shift;

  __device__ std::int32_t row(std::int64_t i) const {
    return order == nullptr ? static_cast<std::int32_t>(i) : order[i];
  }
  /// All digits of -1 are 255. It sorts last, since the passes are enough for `bound` itself: no key has 255 in each.
  __device__ int digit(std::int32_t row) const { return keys[row] >> shift & (digits - 1); }
};

/// What a thread knows of its rows after count_tile; rank is the place among the warp's rows of the same digit.
struct TileRows {
  std::int32_t row[rounds];
  int digit[rounds];  // -1 behind the last row
  int rank[rounds];
};

/// count (warps, digits), shared: how many rows of each warp have each digit. A warp's rows are neighbours, and the rows of
/// each of its rounds, too.
__device__ void count_tile(int (&count)[warps][digits], TileRows& tile, const Pass& pass) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const std::int64_t begin = blockIdx.x * rows_per_tile + warp * rows_per_warp + lane;
  for (int d = lane; d < digits; d += warp_size) count[warp][d] = 0;
#pragma unroll
  for (int r = 0; r < rounds; ++r) {
    const std::int64_t i = begin + r * warp_size;
    tile.digit[r] = -1;
    if (i >= pass.rows) continue;
    tile.row[r] = pass.row(i);
    tile.digit[r] = pass.digit(tile.row[r]);
  }
#pragma unroll
  for (int r = 0; r < rounds; ++r) {
    const int digit = tile.digit[r];
    // The lanes with the same digit: those that agree in every bit, and are rows at all.
    unsigned peers = __ballot_sync(full_mask, digit >= 0);
#pragma unroll
    for (int bit = 0; bit < digit_bits; ++bit) {
      const unsigned set = __ballot_sync(full_mask, digit >> bit & 1);
      peers &= (digit >> bit & 1) != 0 ? set : ~set;
    }
    __syncwarp();  // the round before has counted
    const int before = digit < 0 ? 0 : count[warp][digit];
    const unsigned lower = peers & ((1u << lane) - 1);
    tile.rank[r] = before + __popc(lower);
    __syncwarp();  // all have read
    if (digit >= 0 && lower == 0) count[warp][digit] = before + __popc(peers);
  }
}

/// counts (digits, tiles): the tile's rows of each digit.
__global__ void __launch_bounds__(threads) count_kernel(std::int32_t* counts, Pass pass) {
  __shared__ int count[warps][digits];
  TileRows tile;
  count_tile(count, tile, pass);
  __syncthreads();
  int sum = 0;
  for (const auto& of_warp : count) sum += of_warp[threadIdx.x];
  counts[static_cast<std::int64_t>(threadIdx.x) * gridDim.x + blockIdx.x] = sum;
}

constexpr int scan_threads = 1024;

/// The sum over the lanes up to this one.
__device__ int inclusive_warp_scan(int x) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int distance = 1; distance < warp_size; distance *= 2) {
    const int below = __shfl_up_sync(full_mask, x, distance);
    if (lane >= distance) x += below;
  }
  return x;
}

/// counts (n) become the sums of those in front of them. One block.
__global__ void __launch_bounds__(scan_threads) scan_kernel(std::int32_t* counts, std::int64_t n) {
  __shared__ int of_warp[warp_size];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_size, warp = thread / warp_size;
  int carried = 0;
  for (std::int64_t begin = 0; begin < n; begin += scan_threads) {
    const std::int64_t i = begin + thread;
    const int count = i < n ? counts[i] : 0;
    const int up_to_here = inclusive_warp_scan(count);
    if (lane == warp_size - 1) of_warp[warp] = up_to_here;
    __syncthreads();
    const int up_to_warp = inclusive_warp_scan(of_warp[lane]);
    const int warps_below = __shfl_sync(full_mask, up_to_warp, max(warp - 1, 0));
    if (i < n) counts[i] = carried + (warp > 0 ? warps_below : 0) + up_to_here - count;
    carried += __shfl_sync(full_mask, up_to_warp, warp_size - 1);
    __syncthreads();  // of_warp is written again
  }
}

/// Moves each row of the tile behind the rows of smaller digits, earlier tiles and earlier warps. `counts` is scanned.
__global__ void __launch_bounds__(threads) scatter_kernel(std::int32_t* to, const std::int32_t* counts, Pass pass) {
  __shared__ int count[warps][digits];
  TileRows tile;
  count_tile(count, tile, pass);
  __syncthreads();
  const int digit = static_cast<int>(threadIdx.x);
  int place = counts[static_cast<std::int64_t>(digit) * gridDim.x + blockIdx.x];
  for (auto& of_warp : count) {
    const int rows = of_warp[digit];
    of_warp[digit] = place;
    place += rows;
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
#pragma unroll
  for (int r = 0; r < rounds; ++r) {
    if (tile.digit[r] >= 0) to[count[warp][tile.digit[r]] + tile.rank[r]] = tile.row[r];
  }
}

/// The scratch's parts: the other order of the two that passes write in turn, and the counts.
struct Scratch {
  std::size_t order_bytes, bytes;
  explicit Scratch(std::int64_t rows)
      : order_bytes(ceil_div<std::size_t>(static_cast<std::size_t>(rows) * sizeof(std::int32_t), 256) * 256),
        bytes(order_bytes + static_cast<std::size_t>(ceil_div(rows, rows_per_tile)) * digits * sizeof(std::int32_t)) {}
};

}  // namespace

std::size_t sort_rows_scratch_bytes(std::int64_t rows) {
  return Scratch(rows).bytes;
}

void sort_rows(const Context& context, Tensor order, Tensor keys, std::int64_t bound, void* scratch) {
  const std::int64_t rows = keys.numel();
  VQLM_ASSERT(order.numel() == rows && bound >= 0 && bound < INT32_MAX && rows < INT32_MAX);
  if (rows == 0) return;
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(bound)));
  const int passes = std::max(ceil_div(bits, digit_bits), 1);
  const std::int64_t tiles = ceil_div(rows, rows_per_tile);
  auto* const other = static_cast<std::int32_t*>(scratch);
  auto* const counts = reinterpret_cast<std::int32_t*>(static_cast<char*>(scratch) + Scratch(rows).order_bytes);
  const dim3 grid(static_cast<unsigned>(tiles));

  Pass pass{nullptr, keys.i32(), rows, 0};
  for (int p = 0; p < passes; ++p, pass.shift += digit_bits) {
    // The last pass writes to `order`, the one before to the scratch, and so on in turn.
    std::int32_t* const to = (passes - p) % 2 == 1 ? order.i32() : other;
    launch(count_kernel, {grid, threads, 0, context.stream}, counts, pass);
    launch(scan_kernel, {1, scan_threads, 0, context.stream}, counts, tiles * digits);
    launch(scatter_kernel, {grid, threads, 0, context.stream}, to, counts, pass);
    pass.order = to;
  }
}

}  // namespace vqlm::cuda
