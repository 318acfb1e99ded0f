// Rows of the embedding table by token id, and their gradients.
//
// Forward: bound by memory, 4 N w bytes (rows of frequent tokens come from L2). N = 16,384, w = 768: 50 MB, floor 12 us at
// 4.3 TB/s; not measured.
//
// Backward: dtable's row of a token is the sum of dout's rows where it stands. The rows are sorted by token (sort_rows), the
// sorted rows cut into pieces of at least 32, and a block sums a piece for a slice of the columns, in float and in order. A token
// whose rows lie in one piece goes straight into dtable; of one that reaches over a piece's end each piece writes a partial sum,
// and a second kernel adds those in order. Nobody else touches that row, so there are no atomics, and the result is the same
// in every run. Bytes: 2 N w, and 8 w for each token that occurs (12 N w at most, where all differ); N = 16,384, w = 768:
// 25 MB + up to 101 MB, floor 29 us; not measured. A token that fills the batch costs no more in the first kernel; the second
// adds at most 1024 partial rows (up to 32,768 rows; 128 steps of 8 warps), about 30 us.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/sort_rows.h"
#include "core/ops/embedding.h"

namespace vqlm::cuda {
namespace {

template <int width>
__global__ void embedding_forward_kernel(GridDependency dependency, __nv_bfloat16* out, const std::int32_t* ids,
                                         const __nv_bfloat16* table, const __nv_bfloat16* base, std::int64_t tokens,
                                         std::int64_t rows, std::int64_t columns, std::int64_t first_row) {
  dependency.wait();
  const std::int64_t token = row_of_thread();
  if (token >= tokens) return;
  const std::int64_t row = ids[token] - first_row;
  const bool inside = row >= 0 && row < rows;
  for (std::int64_t c = threadIdx.x * width; c < columns; c += blockDim.x * width) {
    using P = Pack<__nv_bfloat16, width>;
    P pack;
#pragma unroll
    for (auto& element : pack.at) element = __ushort_as_bfloat16(0);
    if (inside) pack = *reinterpret_cast<const P*>(table + row * columns + c);
    if (base != nullptr) {
      const P under = *reinterpret_cast<const P*>(base + token * columns + c);
#pragma unroll
      for (int k = 0; k < width; ++k)
        pack.at[k] = __float2bfloat16(__bfloat162float(under.at[k]) + __bfloat162float(pack.at[k]));
    }
    *reinterpret_cast<P*>(out + token * columns + c) = pack;
  }
}

/// keys (tokens): the table's row of each token, -1 where this shard does not have it.
__global__ void table_rows_kernel(GridDependency dependency, std::int32_t* keys, const std::int32_t* ids,
                                  std::int64_t tokens, std::int64_t rows, std::int64_t first_row) {
  dependency.wait();
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= tokens) return;
  const std::int64_t row = ids[n] - first_row;
  keys[n] = row >= 0 && row < rows ? static_cast<std::int32_t>(row) : -1;
}

/// The sorted rows, cut into pieces.
struct Pieces {
  const std::int32_t* order;  // (tokens)
  const std::int32_t* keys;   // (tokens), by row number
  std::int64_t tokens, length, count;

  /// The key at place i of the order; -1 in front of the first and behind the last.
  __device__ std::int32_t key(std::int64_t i) const { return i < 0 || i >= tokens ? -1 : keys[order[i]]; }
};

/// The two partial sums of a piece: of the token that it shares with the piece before, and of the one that begins in it and
/// goes on behind it. A token that fills the piece and began earlier is the first kind.
enum Partial { from_before = 0, goes_on = 1 };

constexpr int piece_threads = 128;
constexpr int rows_in_flight = 8;  // loads that a thread has under way

/// partials (pieces, 2, columns). Dynamic shared memory: the piece's keys with a neighbour on each side, then its row numbers.
template <int width>
__global__ void __launch_bounds__(piece_threads)
    sum_pieces_kernel(GridDependency dependency, float* dtable, float* partials, const __nv_bfloat16* dout,
                      Pieces pieces, std::int64_t columns) {
  dependency.wait();
  std::int32_t* const key = dynamic_shared<std::int32_t>() + 1;  // key[-1 .. length]
  std::int32_t* const row = key + pieces.length + 1;
  const std::int64_t begin = blockIdx.x * pieces.length;
  const int count = static_cast<int>(min(pieces.length, pieces.tokens - begin));
  for (int i = static_cast<int>(threadIdx.x) - 1; i <= count; i += piece_threads) {
    key[i] = pieces.key(begin + i);
    if (i >= 0 && i < count) row[i] = pieces.order[begin + i];
  }
  __syncthreads();
  const std::int64_t column = (blockIdx.y * piece_threads + threadIdx.x) * static_cast<std::int64_t>(width);
  if (column >= columns) return;

  float sum[width] = {};
  int partial = key[-1] == key[0] ? from_before : goes_on;
  for (int first = 0; first < count && key[first] >= 0; first += rows_in_flight) {
    float term[rows_in_flight][width];
#pragma unroll
    for (int r = 0; r < rows_in_flight; ++r) {
      if (first + r < count) load_pack(term[r], dout + row[first + r] * columns + column);
    }
#pragma unroll
    for (int r = 0; r < rows_in_flight; ++r) {
      const int i = first + r;
      if (i >= count || key[i] < 0) break;
#pragma unroll
      for (int k = 0; k < width; ++k) sum[k] += term[r][k];
      const bool ends = key[i + 1] != key[i];
      if (!ends && i + 1 < count) continue;
      float* target = partials + (2 * blockIdx.x + partial) * columns + column;
      if (ends && partial == goes_on) {  // all of the token's rows were here
        target = dtable + key[i] * columns + column;
        float before[width];
        load_pack(before, target);
#pragma unroll
        for (int k = 0; k < width; ++k) sum[k] += before[k];
      }
      store_pack(target, sum);
#pragma unroll
      for (int k = 0; k < width; ++k) sum[k] = 0;
      partial = goes_on;
    }
  }
}

constexpr int join_warps = 8;

/// Adds the partial sums of each token that reaches over a piece's end; the block of the piece where it begins does it.
template <int width>
__global__ void join_pieces_kernel(GridDependency dependency, float* dtable, const float* partials, Pieces pieces,
                                   std::int64_t columns) {
  dependency.wait();
  __shared__ float of_warp[join_warps][width][warp_size];
  const std::int64_t piece = blockIdx.x, begin = piece * pieces.length, end = begin + pieces.length;
  const std::int32_t key = pieces.key(end - 1);
  if (key < 0 || pieces.key(end) != key || pieces.key(begin - 1) == key) return;
  // The first piece that does not begin with the token; keys are sorted, so halving finds it.
  std::int64_t last = piece + 1, high = pieces.count;
  while (last < high) {
    const std::int64_t middle = (last + high) / 2;
    if (pieces.key(middle * pieces.length) == key) {
      last = middle + 1;
    } else {
      high = middle;
    }
  }
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const std::int64_t column = (blockIdx.y * warp_size + lane) * static_cast<std::int64_t>(width);
  float sum[width] = {};
  if (column < columns) {
    if (warp == 0) load_pack(sum, partials + (2 * piece + goes_on) * columns + column);
#pragma unroll 4
    for (std::int64_t p = piece + 1 + warp; p < last; p += join_warps) {
      float term[width];
      load_pack(term, partials + (2 * p + from_before) * columns + column);
#pragma unroll
      for (int k = 0; k < width; ++k) sum[k] += term[k];
    }
  }
#pragma unroll
  for (int k = 0; k < width; ++k) of_warp[warp][k][lane] = sum[k];
  __syncthreads();
  if (warp != 0 || column >= columns) return;
  float total[width];
  load_pack(total, dtable + key * columns + column);
#pragma unroll
  for (int k = 0; k < width; ++k) {
    for (int w = 1; w < join_warps; ++w) sum[k] += of_warp[w][k][lane];
    total[k] += sum[k];
  }
  store_pack(dtable + key * columns + column, total);
}

/// Pieces of 32 rows, or longer ones, up to 4096, where that would make more than 1024: partial sums take 8 bytes a column each.
std::int64_t piece_length(std::int64_t tokens) {
  return std::clamp<std::int64_t>(ceil_div<std::int64_t>(ceil_div<std::int64_t>(tokens, 1024), 32) * 32, 32, 4096);
}

template <int width>
void sum_runs(const Context& context, Tensor dtable, Tensor dout, const Pieces& pieces, float* partials) {
  const std::int64_t columns = dtable.extent(1);
  const auto column_blocks = [columns](int lanes) {
    return static_cast<unsigned>(ceil_div<std::int64_t>(columns, lanes * width));
  };
  const auto count = static_cast<unsigned>(pieces.count);
  launch(sum_pieces_kernel<width>,
         {dim3(count, column_blocks(piece_threads)), piece_threads,
          static_cast<std::size_t>(2 * pieces.length + 2) * sizeof(std::int32_t), context.stream},
         dtable.f32(), partials, bf16(dout), pieces, columns);
  launch(join_pieces_kernel<width>,
         {dim3(count, column_blocks(warp_size)), dim3(warp_size, join_warps), 0, context.stream}, dtable.f32(),
         partials, pieces, columns);
}

}  // namespace

template <>
void run(const Context& context, const EmbeddingForward& op) {
  const std::int64_t tokens = op.ids.numel(), rows = op.table.extent(0), columns = op.table.extent(1);
  if (op.out.numel() == 0) return;
  const __nv_bfloat16* const base = op.base ? bf16(op.base) : nullptr;  // null begins where any pack may
  const bool wide = rows_in_packs<8>(columns, bf16(op.out), bf16(op.table), base);
  const RowBlocks blocks = row_blocks(tokens, wide ? columns / 8 : columns);
  launch(wide ? embedding_forward_kernel<8> : embedding_forward_kernel<1>,
         {blocks.grid, blocks.block, 0, context.stream}, bf16(op.out), op.ids.i32(), bf16(op.table), base, tokens, rows,
         columns, op.first_row);
}

template <>
void run(const Context& context, const EmbeddingBackward& op) {
  const std::int64_t tokens = op.ids.numel(), rows = op.dtable.extent(0), columns = op.dtable.extent(1);
  if (op.dout.numel() == 0 || rows == 0) return;
  const std::int64_t length = piece_length(tokens), count = ceil_div(tokens, length);
  // The workspace: partial sums, then keys, order and the sort's scratch; each part aligned to 256 bytes.
  const auto padded = [](std::size_t bytes) { return ceil_div<std::size_t>(bytes, 256) * 256; };
  const std::size_t partial_bytes = padded(static_cast<std::size_t>(2 * count * columns) * sizeof(float));
  const std::size_t index_bytes = padded(static_cast<std::size_t>(tokens) * sizeof(std::int32_t));
  auto* const workspace =
      static_cast<char*>(context.workspace->get(partial_bytes + 2 * index_bytes + sort_rows_scratch_bytes(tokens)));
  const Tensor keys(workspace + partial_bytes, DType::i32, {tokens});
  const Tensor order(workspace + partial_bytes + index_bytes, DType::i32, {tokens});
  auto* const partials = reinterpret_cast<float*>(workspace);

  launch(table_rows_kernel, {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(tokens, 256))), 256, 0, context.stream},
         keys.i32(), op.ids.i32(), tokens, rows, op.first_row);
  sort_rows(context, order, keys, rows, workspace + partial_bytes + 2 * index_bytes);
  const Pieces pieces{order.i32(), keys.i32(), tokens, length, count};
  if (rows_in_packs<8>(columns, bf16(op.dout)) && rows_in_packs<4>(columns, op.dtable.f32())) {
    sum_runs<8>(context, op.dtable, op.dout, pieces, partials);
  } else {
    sum_runs<1>(context, op.dtable, op.dout, pieces, partials);
  }
}

}  // namespace vqlm::cuda
