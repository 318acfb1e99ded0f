// Softmax cross entropy over sharded classes. Rows are independent: one thread each, one pass over memory each.
#include <algorithm>
#include <cmath>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"

namespace vqlm::cpu {
namespace {

/// Shapes that the sharded ops share.
void check_classes(Tensor logits, Tensor bias, Tensor targets, const ClassShard& classes) {
  VQLM_ASSERT(logits.rank() == 2 && targets.numel() == logits.extent(0));
  VQLM_ASSERT(classes.count <= logits.extent(1) && (!bias || bias.numel() == classes.count));
}

/// The target's column in this shard, or -1.
std::int64_t column_of(std::int32_t target, const ClassShard& classes) {
  const std::int64_t column = target - classes.first;
  return target >= 0 && column >= 0 && column < classes.count ? column : -1;
}

}  // namespace

void softmax_statistics(Tensor statistics, Tensor logits, Tensor bias, Tensor targets,
                        const ClassShard& classes) {
  check_classes(logits, bias, targets, classes);
  const std::int64_t rows = logits.extent(0), width = logits.extent(1);
  VQLM_ASSERT(classes.count > 0 && (statistics.shape() == Shape{rows, 3}));
  float* const out = statistics.f32();
  const float *const x = logits.f32(), *const b = bias.f32();
  const std::int32_t* const target = targets.i32();
  parallel_blocks(rows, rows_per_block(classes.count), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float* const row = x + n * width;
      const RowStatistics found = row_statistics(row, b, classes.count);
      const std::int64_t column = column_of(target[n], classes);
      out[3 * n] = found.maximum;
      out[3 * n + 1] = found.sum;
      out[3 * n + 2] = column < 0 ? 0.0f : row[column] + (b == nullptr ? 0.0f : b[column]);
    }
  });
}

void softmax_combine(Tensor nll, Tensor lse, Tensor statistics, Tensor targets) {
  VQLM_ASSERT(statistics.rank() == 3 && statistics.extent(0) > 0 && statistics.extent(2) == 3);
  const std::int64_t shards = statistics.extent(0), rows = statistics.extent(1);
  VQLM_ASSERT(nll.numel() == rows && lse.numel() == rows && targets.numel() == rows);
  float *const nll_data = nll.f32(), *const lse_data = lse.f32();
  const float* const in = statistics.f32();
  const std::int32_t* const target = targets.i32();
  parallel_blocks(rows, rows_per_block(3 * shards), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      float maximum = in[3 * n];
      for (std::int64_t p = 1; p < shards; ++p) {
        const float other = in[3 * (p * rows + n)];
        if (!(other <= maximum)) maximum = other;  // NaN stays visible
      }
      float sum = 0, logit = 0;
      for (std::int64_t p = 0; p < shards; ++p) {
        const float* const part = in + 3 * (p * rows + n);
        sum += part[1] * std::exp(part[0] - maximum);
        logit += part[2];
      }
      const float log_sum = std::log(sum);
      lse_data[n] = maximum + log_sum;
      // maximum - logit first: both may be large, and their difference is exact where they are close.
      nll_data[n] = target[n] < 0 ? 0.0f : (maximum - logit) + log_sum;
    }
  });
}

void softmax_gradient(Tensor logits, Tensor bias, Tensor lse, Tensor targets, const ClassShard& classes,
                      float scale) {
  check_classes(logits, bias, targets, classes);
  const std::int64_t rows = logits.extent(0), width = logits.extent(1);
  VQLM_ASSERT(lse.numel() == rows);
  float* const x = logits.f32();
  const float *const b = bias.f32(), *const lse_data = lse.f32();
  const std::int32_t* const target = targets.i32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      float* const row = x + n * width;
      if (target[n] < 0) {
        std::fill(row, row + width, 0.0f);
        continue;
      }
      row_softmax(row, b, lse_data[n], scale, classes.count);
      std::fill(row + classes.count, row + width, 0.0f);
      const std::int64_t column = column_of(target[n], classes);
      if (column >= 0) row[column] -= scale;
    }
  });
}

void log_softmax(Tensor logits, Tensor bias) {
  VQLM_ASSERT(logits.rank() == 2 && logits.extent(1) > 0);
  VQLM_ASSERT(!bias || bias.numel() == logits.extent(1));
  const std::int64_t rows = logits.extent(0), classes = logits.extent(1);
  float* const x = logits.f32();
  const float* const b = bias.f32();
  parallel_blocks(rows, rows_per_block(classes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      float* const row = x + n * classes;
      const RowStatistics found = row_statistics(row, b, classes);
      row_shift(row, b, found.maximum + std::log(found.sum), classes);
    }
  });
}

}  // namespace vqlm::cpu
