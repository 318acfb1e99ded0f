// The VQ head's bookkeeping around its K codes: rows sorted by cluster, the commitment loss, and
// codes as means.
#include <utility>
#include <vector>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"

namespace vqlm::cpu {
namespace {

constexpr float least_count = 1e-30f;  // core/backend.h; its reciprocal is far from overflow

}  // namespace

void sort_rows_by_cluster(Tensor clusters, Tensor order, Tensor row_begin, Tensor targets,
                          const CodeMapView& map) {
  const std::int64_t rows = targets.numel(), codes = row_begin.numel() - 1;
  VQLM_ASSERT(clusters.numel() == rows && order.numel() == rows && codes > 0);
  const std::int64_t vocabulary = map.cluster_of_token.numel();
  std::int32_t *const cluster = clusters.i32(), *const sorted = order.i32(), *const begin = row_begin.i32();
  const std::int32_t *const target = targets.i32(), *const cluster_of_token = map.cluster_of_token.i32();

  // Serial: two passes over 8 bytes a row, 10 us for 4096 rows.
  std::vector<std::int32_t> next(static_cast<std::size_t>(codes) +
                                 1);  // the last one for rows without target
  for (std::int64_t n = 0; n < rows; ++n) {
    VQLM_ASSERT(target[n] < vocabulary);
    cluster[n] = target[n] < 0 ? -1 : cluster_of_token[target[n]];
    ++next[static_cast<std::size_t>(cluster[n] < 0 ? codes : cluster[n])];
  }
  std::int32_t total = 0;
  for (std::int64_t k = 0; k <= codes; ++k) {
    begin[k] = total;
    total += std::exchange(next[static_cast<std::size_t>(k)], total);
  }
  for (std::int64_t n = 0; n < rows; ++n) {
    sorted[next[static_cast<std::size_t>(cluster[n] < 0 ? codes : cluster[n])]++] =
        static_cast<std::int32_t>(n);
  }
}

void commitment(Tensor penalty, Tensor dh, Tensor h, Tensor codebook, Tensor clusters, float beta,
                float scale) {
  VQLM_ASSERT(h.rank() == 2 && codebook.rank() == 2 && codebook.extent(1) == h.extent(1));
  const std::int64_t rows = h.extent(0), width = h.extent(1);
  VQLM_ASSERT(penalty.numel() == rows && clusters.numel() == rows && (!dh || dh.shape() == h.shape()));
  const float rate = beta / static_cast<float>(width);
  float *const out = penalty.f32(), *const gradient = dh.f32();
  const float *const h_data = h.f32(), *const code = codebook.f32();
  const std::int32_t* const cluster = clusters.i32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      if (cluster[n] < 0) {
        out[n] = 0;
        continue;
      }
      float* const row_gradient = gradient == nullptr ? nullptr : gradient + n * width;
      out[n] = rate * row_add_difference(row_gradient, h_data + n * width, code + cluster[n] * width,
                                         scale * 2 * rate, width);
    }
  });
}

void codes_from_averages(Tensor codebook, Tensor sums, Tensor counts, float scale) {
  VQLM_ASSERT(codebook.rank() == 2 && sums.shape() == codebook.shape());
  const std::int64_t codes = codebook.extent(0), width = codebook.extent(1);
  VQLM_ASSERT(counts.numel() == codes);
  float* const code = codebook.f32();
  const float *const sum = sums.f32(), *const count = counts.f32();
  parallel_blocks(codes, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      if (!(count[k] >= least_count)) continue;
      const float factor = scale / count[k];
      for (std::int64_t i = k * width; i < (k + 1) * width; ++i) code[i] = factor * sum[i];
    }
  });
}

}  // namespace vqlm::cpu
