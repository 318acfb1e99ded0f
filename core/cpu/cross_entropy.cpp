// Softmax cross entropy over sharded classes. Rows are independent: one thread each, one pass over memory each.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"

namespace vqlm::cpu {
namespace {

/// The target's column in this shard, or -1.
std::int64_t column_of(std::int32_t target, const ClassShard& classes) {
  const std::int64_t column = target - classes.first;
  return target >= 0 && column >= 0 && column < classes.count ? column : -1;
}

/// Rows of logits behind a cap, one at a time; without a cap they are left as they are, with their bias beside them.
class CappedRow {
 public:
  CappedRow(const float* bias, float cap, std::int64_t classes)
      : bias_(bias), cap_(cap), values_(cap > 0 ? static_cast<std::size_t>(classes) : 0) {}

  /// The row and the bias to be added to it, null where it is in already. Valid until the next call.
  std::pair<const float*, const float*> of(const float* row) {
    if (cap_ <= 0) return {row, bias_};
    row_cap(values_.data(), row, bias_, cap_, static_cast<std::int64_t>(values_.size()));
    return {values_.data(), nullptr};
  }

 private:
  const float* bias_;
  float cap_;
  std::vector<float> values_;
};

}  // namespace

template <>
void run(const SoftmaxStatistics& op) {
  const ClassShard& classes = op.classes;
  VQLM_ASSERT(classes.count > 0);
  const std::int64_t rows = op.logits.extent(0), width = op.logits.extent(1);
  float* const out = op.statistics.f32();
  const float *const x = op.logits.f32(), *const b = op.bias.f32();
  const std::int32_t* const target = op.targets.i32();
  parallel_blocks(rows, rows_per_block(classes.count), [&](std::int64_t begin, std::int64_t end) {
    CappedRow capped(b, op.softcap, classes.count);
    for (std::int64_t n = begin; n < end; ++n) {
      const auto [row, bias] = capped.of(x + n * width);
      const RowStatistics found = row_statistics(row, bias, classes.count);
      const std::int64_t column = column_of(target[n], classes);
      out[3 * n] = found.maximum;
      out[3 * n + 1] = found.sum;
      out[3 * n + 2] = column < 0 ? 0.0f : row[column] + (bias == nullptr ? 0.0f : bias[column]);
    }
  });
}

template <>
void run(const SoftmaxCombine& op) {
  const std::int64_t shards = op.statistics.extent(0), rows = op.statistics.extent(1);
  float *const nll_data = op.nll.f32(), *const lse_data = op.lse.f32(), *const penalty_data = op.penalty.f32();
  const float* const in = op.statistics.f32();
  const std::int32_t* const target = op.targets.i32();
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
      if (penalty_data != nullptr) penalty_data[n] = target[n] < 0 ? 0.0f : op.z_loss * lse_data[n] * lse_data[n];
    }
  });
}

template <>
void run(const SoftmaxGradient& op) {
  const ClassShard& classes = op.classes;
  const std::int64_t rows = op.logits.extent(0), width = op.logits.extent(1);
  float* const x = op.logits.f32();
  const float *const b = op.bias.f32(), *const lse_data = op.lse.f32();
  const std::int32_t* const target = op.targets.i32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    CappedRow capped(b, op.softcap, classes.count);
    for (std::int64_t n = begin; n < end; ++n) {
      float* const row = x + n * width;
      if (target[n] < 0) {
        std::fill(row, row + width, 0.0f);
        continue;
      }
      const auto [values, bias] = capped.of(row);
      if (values != row) std::copy_n(values, classes.count, row);
      row_softmax(row, bias, lse_data[n], op.scale * (1 + 2 * op.z_loss * lse_data[n]), classes.count);
      std::fill(row + classes.count, row + width, 0.0f);
      const std::int64_t column = column_of(target[n], classes);
      if (column >= 0) row[column] -= op.scale;
      if (values != row) row_cap_gradient(row, values, op.softcap, classes.count);
    }
  });
}

template <>
void run(const SoftmaxCrossEntropy& op) {
  run(op.statistics_step());
  run(op.combine_step());
  run(op.gradient_step());
  if (op.dbias) run(AddColumnSums{.out = op.dbias, .x = op.logits});
}

template <>
void run(const LogSoftmax& op) {
  const std::int64_t rows = op.logits.extent(0), classes = op.logits.extent(1);
  float* const x = op.logits.f32();
  const float* const b = op.bias.f32();
  parallel_blocks(rows, rows_per_block(classes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      float* const row = x + n * classes;
      if (op.softcap > 0) row_cap(row, row, b, op.softcap, classes);
      const float* const bias = op.softcap > 0 ? nullptr : b;
      const RowStatistics found = row_statistics(row, bias, classes);
      row_shift(row, bias, found.maximum + std::log(found.sum), classes);
    }
  });
}

}  // namespace vqlm::cpu
