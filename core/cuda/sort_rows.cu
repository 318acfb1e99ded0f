// A stable radix sort of row numbers, least significant digit first, 8 bits of the key a pass. A pass counts the digits of each
// tile of rows, adds the counts up in the order (digit, tile), and moves each row to its place; within a tile a row's rank
// among its digit comes from ballots of its warp, so nothing depends on the order of atomics. In the last pass rows without
// key have a digit of their own behind the 256, so that keys below 256 (the VQ head's clusters, where K is at most that) take
// one pass, and keys below 65,536 two.
//
// Bytes a pass: 4 N for the row numbers read and written, 4 N of keys gathered twice from L2, counts in L2; about 60 integer
// operations a row. N = 16,384: 0.2 us a pass at 4.3 TB/s, so launches decide: 2 a pass up to 64 tiles (131,072 rows), whose
// counts each block adds up by itself, 3 beyond. V = 50,257: 4 launches where there were 6 (10 us where they were 15, 7 in a
// graph); K = 256: 2 where there were 6. Not measured.
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
static_assert(threads == digits);  // a thread for each digit, and the first one for no_key, too
constexpr int no_key = digits;     // in the last pass
constexpr std::int64_t most_tiles_added_up_by_blocks = 64;

/// Of the last pass, digits and no_key; of one before, digits.
enum class Position { before, last };
template <Position position>
constexpr int counted_digits = position == Position::last ? digits + 1 : digits;

/// One pass's input: row i of the order so far, or i itself where there is none yet.
struct Pass {
  const std::int32_t* order;  // null in the first pass
  const std::int32_t* keys;
  std::int64_t rows;
  int shift;
  // Whether counts, (digits, tiles), become sums of those in front of them between the kernels; else they are (tiles, digits),
  // and each block of the second adds up those it needs.
  bool scanned;

  __device__ std::int32_t row(std::int64_t i) const {
    return order == nullptr ? static_cast<std::int32_t>(i) : order[i];
  }
  /// -1 sorts last by the last pass; in those before its digits are all the same, so that its rows keep their order.
  template <Position position>
  __device__ int digit(std::int32_t row) const {
    const std::int32_t key = keys[row];
    return position == Position::last && key < 0 ? no_key : key >> shift & (digits - 1);
  }
};

/// Of the count of this block's tile; digit: at most counted_digits.
template <Position position>
__device__ std::int64_t count_at(const Pass& pass, int digit) {
  return pass.scanned ? static_cast<std::int64_t>(digit) * gridDim.x + blockIdx.x
                      : static_cast<std::int64_t>(blockIdx.x) * counted_digits<position> + digit;
}

/// What a thread knows of its rows after count_tile; rank is the place among the warp's rows of the same digit.
struct TileRows {
  std::int32_t row[rounds];
  int digit[rounds];  // -1 behind the last row
  int rank[rounds];
};

/// count (warps, digits), shared: how many rows of each warp have each digit. A warp's rows are neighbours, and the rows of
/// each of its rounds, too.
template <Position position>
__device__ void count_tile(int (&count)[warps][counted_digits<position>], TileRows& tile, const Pass& pass) {
  constexpr int bits = position == Position::last ? digit_bits + 1 : digit_bits;
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const std::int64_t begin = blockIdx.x * rows_per_tile + warp * rows_per_warp + lane;
  for (int d = lane; d < counted_digits<position>; d += warp_size) count[warp][d] = 0;
#pragma unroll
  for (int r = 0; r < rounds; ++r) {
    const std::int64_t i = begin + r * warp_size;
    tile.digit[r] = -1;
    if (i >= pass.rows) continue;
    tile.row[r] = pass.row(i);
    tile.digit[r] = pass.digit<position>(tile.row[r]);
  }
#pragma unroll
  for (int r = 0; r < rounds; ++r) {
    const int digit = tile.digit[r];
    // The lanes with the same digit: those that agree in every bit, and are rows at all.
    unsigned peers = __ballot_sync(full_mask, digit >= 0);
#pragma unroll
    for (int bit = 0; bit < bits; ++bit) {
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

/// counts: the tile's rows of each digit.
template <Position position>
__global__ void __launch_bounds__(threads) count_kernel(GridDependency dependency, std::int32_t* counts, Pass pass) {
  dependency.wait();
  __shared__ int count[warps][counted_digits<position>];
  TileRows tile;
  count_tile<position>(count, tile, pass);
  __syncthreads();
  const auto store = [&](int digit) {
    int sum = 0;
    for (const auto& of_warp : count) sum += of_warp[digit];
    counts[count_at<position>(pass, digit)] = sum;
  };
  store(static_cast<int>(threadIdx.x));
  if (position == Position::last && threadIdx.x == 0) store(no_key);
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
__global__ void __launch_bounds__(scan_threads)
    scan_kernel(GridDependency dependency, std::int32_t* counts, std::int64_t n) {
  dependency.wait();
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

/// Where a block's rows begin: those with this thread's digit, and those without key.
struct FirstPlaces {
  int of_digit, of_no_key;
};

/// From the counts of all tiles (tiles, digits): behind all rows of smaller digits, and those of earlier tiles. A thread for
/// each digit.
template <Position position>
__device__ FirstPlaces first_places(const std::int32_t* counts) {
  __shared__ int all_of_warp[warps], earlier_of_warp[warps];
  const int digit = static_cast<int>(threadIdx.x), lane = digit % warp_size, warp = digit / warp_size;
  const int tiles = static_cast<int>(gridDim.x), tile = static_cast<int>(blockIdx.x);
  int all = 0, earlier = 0;
#pragma unroll 16
  for (int t = 0; t < tiles; ++t) {
    const int count = counts[t * counted_digits<position> + digit];
    all += count;
    if (t < tile) earlier += count;
  }
  const int up_to_here = inclusive_warp_scan(all), earlier_in_warp = warp_sum(earlier);
  if (lane == warp_size - 1) {
    all_of_warp[warp] = up_to_here;
    earlier_of_warp[warp] = earlier_in_warp;
  }
  __syncthreads();
  int below = 0, with_key = 0, earlier_with_key = 0;
#pragma unroll
  for (int w = 0; w < warps; ++w) {
    if (w < warp) below += all_of_warp[w];
    with_key += all_of_warp[w];
    earlier_with_key += earlier_of_warp[w];
  }
  // All rows of earlier tiles that have no digit have no key: tiles before the last are full.
  const int earlier_without = tile * static_cast<int>(rows_per_tile) - earlier_with_key;
  return {below + up_to_here - all + earlier, with_key + earlier_without};
}

/// Moves each row of the tile behind the rows of smaller digits, earlier tiles and earlier warps.
template <Position position>
__global__ void __launch_bounds__(threads)
    scatter_kernel(GridDependency dependency, std::int32_t* to, const std::int32_t* counts, Pass pass) {
  dependency.wait();
  __shared__ int count[warps][counted_digits<position>];
  TileRows tile;
  count_tile<position>(count, tile, pass);
  const int digit = static_cast<int>(threadIdx.x);
  FirstPlaces first{};
  if (!pass.scanned) {
    first = first_places<position>(counts);
  } else {
    first.of_digit = counts[count_at<position>(pass, digit)];
    if (position == Position::last) first.of_no_key = counts[count_at<position>(pass, no_key)];
  }
  __syncthreads();
  const auto add_up = [&](int d, int place) {
    for (auto& of_warp : count) {
      const int rows = of_warp[d];
      of_warp[d] = place;
      place += rows;
    }
  };
  add_up(digit, first.of_digit);
  if (position == Position::last && digit == 0) add_up(no_key, first.of_no_key);
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
        bytes(order_bytes +
              static_cast<std::size_t>(ceil_div(rows, rows_per_tile)) * (digits + 1) * sizeof(std::int32_t)) {}
};

}  // namespace

std::size_t sort_rows_scratch_bytes(std::int64_t rows) {
  return Scratch(rows).bytes;
}

void sort_rows(const Context& context, Tensor order, Tensor keys, std::int64_t bound, void* scratch) {
  const std::int64_t rows = keys.numel();
  VQLM_ASSERT(order.numel() == rows && bound >= 0 && bound < INT32_MAX && rows < INT32_MAX);
  if (rows == 0) return;
  const auto largest = static_cast<std::uint64_t>(std::max<std::int64_t>(bound - 1, 0));
  const int passes = std::max(ceil_div(static_cast<int>(std::bit_width(largest)), digit_bits), 1);
  const std::int64_t tiles = ceil_div(rows, rows_per_tile);
  auto* const other = static_cast<std::int32_t*>(scratch);
  auto* const counts = reinterpret_cast<std::int32_t*>(static_cast<char*>(scratch) + Scratch(rows).order_bytes);
  const dim3 grid(static_cast<unsigned>(tiles));

  Pass pass{nullptr, keys.i32(), rows, 0, tiles > most_tiles_added_up_by_blocks};
  const auto run_pass = [&](auto count, auto scatter, int kinds, std::int32_t* to) {
    launch(count, {grid, threads, 0, context.stream}, counts, pass);
    if (pass.scanned) launch(scan_kernel, {1, scan_threads, 0, context.stream}, counts, tiles * kinds);
    launch(scatter, {grid, threads, 0, context.stream}, to, counts, pass);
    pass.order = to;
    pass.shift += digit_bits;
  };
  for (int p = 0; p + 1 < passes; ++p) {
    // The last pass writes to `order`, the one before to the scratch, and so on in turn.
    run_pass(count_kernel<Position::before>, scatter_kernel<Position::before>, counted_digits<Position::before>,
             (passes - p) % 2 == 1 ? order.i32() : other);
  }
  run_pass(count_kernel<Position::last>, scatter_kernel<Position::last>, counted_digits<Position::last>, order.i32());
}

}  // namespace vqlm::cuda
