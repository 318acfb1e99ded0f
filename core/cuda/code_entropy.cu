// The VQ head's bookkeeping around its K codes: rows sorted by cluster, the commitment loss, and codes as means. The first is a few
// passes over 4 bytes a row; commitment reads h, writes dh and reads K d of codes at home in the second-level cache,
// 6 N d bytes (N 16,384, d 4,096: 0.4 GB, floor 0.09 ms at 4.3 TB/s); codes_from_averages, once a step, 8 K d bytes.
// Not measured on a GPU.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/sort_rows.h"

namespace vqlm::cuda {
namespace {

constexpr int block_threads = 256;

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>(ceil_div(threads, std::int64_t{block_threads}));
}

__global__ void __launch_bounds__(block_threads)
    clusters_kernel(std::int32_t* clusters, const std::int32_t* targets, const std::int32_t* cluster_of_token,
                    std::int64_t rows) {
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (n < rows) clusters[n] = targets[n] < 0 ? -1 : cluster_of_token[targets[n]];
}

/// row_begin[k], k in 0 .. codes: how many rows have clusters below k, by bisection of the sorted rows.
__global__ void __launch_bounds__(block_threads)
    row_begin_kernel(std::int32_t* row_begin, const std::int32_t* order, const std::int32_t* clusters,
                     std::int64_t rows, std::int64_t codes) {
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

constexpr float least_count = 1e-30f;  // core/backend.h

__global__ void __launch_bounds__(block_threads)
    codes_from_averages_kernel(float* codebook, const float* sums, const float* counts, std::int64_t n,
                               std::int64_t d, float scale) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (i >= n) return;
  const float count = counts[i / d];
  if (count >= least_count) codebook[i] = scale / count * sums[i];
}

/// A warp per row. width: elements a lane reads at once.
template <int width>
__global__ void __launch_bounds__(block_threads)
    commitment_kernel(float* penalty, __nv_bfloat16* dh, const __nv_bfloat16* h,
                      const __nv_bfloat16* codebook, const std::int32_t* clusters, std::int64_t rows,
                      std::int64_t d, float rate, float scale) {
  const std::int64_t n =
      static_cast<std::int64_t>(blockIdx.x) * (block_threads / warp_size) + threadIdx.x / warp_size;
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

void sort_rows_by_cluster(const Context& context, Tensor clusters, Tensor order, Tensor row_begin,
                          Tensor targets, const CodeMapView& map) {
  const std::int64_t rows = targets.numel(), codes = row_begin.numel() - 1;
  VQLM_ASSERT(clusters.numel() == rows && order.numel() == rows && codes > 0);
  if (rows > 0) {
    launch(clusters_kernel, {blocks_for(rows), block_threads, 0, context.stream}, clusters.i32(),
           targets.i32(), map.cluster_of_token.i32(), rows);
    sort_rows(context, order, clusters, codes, context.workspace->get(sort_rows_scratch_bytes(rows)));
  }
  launch(row_begin_kernel, {blocks_for(codes + 1), block_threads, 0, context.stream}, row_begin.i32(),
         order.i32(), clusters.i32(), rows, codes);
}

void commitment(const Context& context, Tensor penalty, Tensor dh, Tensor h, Tensor codebook, Tensor clusters,
                float beta, float scale) {
  VQLM_ASSERT(h.rank() == 2 && codebook.rank() == 2 && codebook.extent(1) == h.extent(1));
  const std::int64_t rows = h.extent(0), d = h.extent(1);
  VQLM_ASSERT(penalty.numel() == rows && clusters.numel() == rows && (!dh || dh.shape() == h.shape()));
  if (rows == 0) return;
  const auto run = [&](auto kernel) {
    launch(kernel, {blocks_for(rows * warp_size), block_threads, 0, context.stream}, penalty.f32(), bf16(dh),
           bf16(h), bf16(codebook), clusters.i32(), rows, d, beta / static_cast<float>(d), scale);
  };
  if (rows_in_packs<8>(d, bf16(dh), bf16(h), bf16(codebook))) {
    run(commitment_kernel<8>);
  } else {
    run(commitment_kernel<1>);
  }
}

void codes_from_averages(const Context& context, Tensor codebook, Tensor sums, Tensor counts, float scale) {
  VQLM_ASSERT(codebook.rank() == 2 && sums.shape() == codebook.shape());
  const std::int64_t n = codebook.numel(), d = codebook.extent(1);
  VQLM_ASSERT(counts.numel() == codebook.extent(0));
  if (n == 0) return;
  launch(codes_from_averages_kernel, {blocks_for(n), block_threads, 0, context.stream}, codebook.f32(),
         sums.f32(), counts.f32(), n, d, scale);
}

}  // namespace vqlm::cuda
