// The VQ head's bookkeeping around its K codes: rows sorted by cluster, the commitment loss, and codes as means. The first is a few
// passes over 4 bytes a row; commitment reads h, writes dh and reads K d of codes at home in the second-level cache,
// 6 N d bytes (N 16,384, d 4,096: 0.4 GB, floor 0.09 ms at 4.3 TB/s); codes_from_averages, once a step, 8 K d bytes.
// Not measured on a GPU.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/sort_rows.h"
#include "core/ops/code_entropy.h"

namespace vqlm::cuda {
namespace {

constexpr int block_threads = 256;

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>(ceil_div(threads, std::int64_t{block_threads}));
}

__global__ void __launch_bounds__(block_threads)
    clusters_kernel(GridDependency dependency, std::int32_t* clusters, const std::int32_t* targets,
                    const std::int32_t* cluster_of_token, std::int64_t rows) {
  dependency.wait();
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (n < rows) clusters[n] = targets[n] < 0 ? -1 : cluster_of_token[targets[n]];
}

/// row_begin[k], k in 0 .. codes: how many rows have clusters below k, by bisection of the sorted rows.
__global__ void __launch_bounds__(block_threads)
    row_begin_kernel(GridDependency dependency, std::int32_t* row_begin, const std::int32_t* order,
                     const std::int32_t* clusters, std::int64_t rows, std::int64_t codes) {
  dependency.wait();
  const std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (k > codes) return;
  std::int64_t low = 0, high = rows;  // the answer lies in [low, high]
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    const std::int32_t cluster = clusters[order[middle]];
    if (cluster >= 0 && cluster < k) {
      low = middle + 1;
    } else {
      high = middle;  // rows without target come last
    }
  }
  row_begin[k] = static_cast<std::int32_t>(low);
}

__global__ void __launch_bounds__(block_threads)
    codes_from_averages_kernel(GridDependency dependency, float* codebook, const float* sums, const float* counts,
                               std::int64_t n, std::int64_t d, float scale) {
  dependency.wait();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= n) return;
  const float count = counts[i / d];
  if (count >= CodesFromAverages::least_count) codebook[i] = scale / count * sums[i];
}

/// A warp per row. width: elements a lane reads at once.
template <int width>
__global__ void __launch_bounds__(block_threads)
    commitment_kernel(GridDependency dependency, float* penalty, __nv_bfloat16* dh, const __nv_bfloat16* h,
                      const __nv_bfloat16* codebook, const std::int32_t* clusters, std::int64_t rows, std::int64_t d,
                      float rate, float scale) {
  dependency.wait();
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * (block_threads / warp_size) + threadIdx.x / warp_size;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  if (n >= rows) return;
  const std::int32_t cluster = clusters[n];
  float sum = 0;
  for (std::int64_t i = lane * width; cluster >= 0 && i < d; i += warp_size * width) {
    float x[width], code[width];
    load_pack<width>(x, h + n * d + i);
    load_pack<width>(code, codebook + cluster * d + i);
#pragma unroll
    for (int j = 0; j < width; ++j) {
      x[j] -= code[j];
      sum += x[j] * x[j];
    }
    if (dh == nullptr) continue;
    float gradient[width];
    load_pack<width>(gradient, dh + n * d + i);
#pragma unroll
    for (int j = 0; j < width; ++j) gradient[j] += scale * 2 * rate * x[j];
    store_pack<width>(dh + n * d + i, gradient);
  }
  sum = warp_sum(sum);
  if (lane == 0) penalty[n] = rate * sum;
}

}  // namespace

template <>
void run(const Context& context, const SortRowsByCluster& op) {
  const std::int64_t rows = op.targets.numel(), codes = op.row_begin.numel() - 1;
  if (rows > 0) {
    launch(clusters_kernel, {blocks_for(rows), block_threads, 0, context.stream}, op.clusters.i32(), op.targets.i32(),
           op.map.cluster_of_token.i32(), rows);
    sort_rows(context, op.order, op.clusters, codes, context.workspace->get(sort_rows_scratch_bytes(rows)));
  }
  launch(row_begin_kernel, {blocks_for(codes + 1), block_threads, 0, context.stream}, op.row_begin.i32(),
         op.order.i32(), op.clusters.i32(), rows, codes);
}

template <>
void run(const Context& context, const Commitment& op) {
  const std::int64_t rows = op.h.extent(0), d = op.h.extent(1);
  if (rows == 0) return;
  const auto start = [&](auto kernel) {
    launch(kernel, {blocks_for(rows * warp_size), block_threads, 0, context.stream}, op.penalty.f32(), bf16(op.dh),
           bf16(op.h), bf16(op.codebook), op.clusters.i32(), rows, d, op.beta / static_cast<float>(d), op.scale);
  };
  if (rows_in_packs<8>(d, bf16(op.dh), bf16(op.h), bf16(op.codebook))) {
    start(commitment_kernel<8>);
  } else {
    start(commitment_kernel<1>);
  }
}

template <>
void run(const Context& context, const CodesFromAverages& op) {
  const std::int64_t n = op.codebook.numel(), d = op.codebook.extent(1);
  if (n == 0) return;
  launch(codes_from_averages_kernel, {blocks_for(n), block_threads, 0, context.stream}, op.codebook.f32(),
         op.sums.f32(), op.counts.f32(), n, d, op.scale);
}

}  // namespace vqlm::cuda
