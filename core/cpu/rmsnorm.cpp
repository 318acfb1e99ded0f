// RMSNorm (arXiv 1910.07467). With xhat = x * rstd and g = dy * gain:
//   dx = rstd * (g - xhat * mean(g * xhat)),  dgain = sum over rows of dy * xhat.
// Each row is read from memory once; its second pass finds it in the first-level cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/rmsnorm.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cmath>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/ops/rmsnorm.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// Returns sum(x^2), or sum((x + branch)^2) and writes x + branch to `sum`.
float sum_of_squares_of_row(float* sum, const float* x, const float* branch, std::int64_t width) {
  if (branch == nullptr) {
    return sum_lanes(width, [&](auto d, std::int64_t i, auto total) HWY_ATTR {
      const auto v = hn::LoadU(d, x + i);
      return hn::MulAdd(v, v, total);
    });
  }
  return sum_lanes(width, [&](auto d, std::int64_t i, auto total) HWY_ATTR {
    const auto v = hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, branch + i));
    hn::StoreU(v, d, sum + i);
    return hn::MulAdd(v, v, total);
  });
}

/// y = x * rstd * gain for one row.
void scale_row(float* y, const float* x, const float* gain, float rstd, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto xhat = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, rstd));
    hn::StoreU(hn::Mul(xhat, hn::LoadU(d, gain + i)), d, y + i);
  });
}

/// Adds dy * xhat to dgain, and returns sum(dy * gain * x).
float gain_gradient_of_row(float* dgain, const float* dy, const float* x, const float* gain, float rstd,
                           std::int64_t width) {
  return sum_lanes(width, [&](auto d, std::int64_t i, auto total) HWY_ATTR {
    const auto dy_x = hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, x + i));
    hn::StoreU(hn::MulAdd(dy_x, hn::Set(d, rstd), hn::LoadU(d, dgain + i)), d, dgain + i);
    return hn::MulAdd(dy_x, hn::LoadU(d, gain + i), total);
  });
}

/// dx = rstd * dy * gain - slope * x for one row, added to dx where `accumulate`.
void input_gradient_of_row(float* dx, const float* dy, const float* x, const float* gain, float rstd, float slope,
                           bool accumulate, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, gain + i));
    const auto mean_part = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, slope));
    auto gradient = hn::MulSub(g, hn::Set(d, rstd), mean_part);
    if (accumulate) gradient = hn::Add(gradient, hn::LoadU(d, dx + i));
    hn::StoreU(gradient, d, dx + i);
  });
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(sum_of_squares_of_row);
HWY_EXPORT(scale_row);
HWY_EXPORT(gain_gradient_of_row);
HWY_EXPORT(input_gradient_of_row);

template <>
void run(const RmsnormForward& op) {
  const std::int64_t rows = op.x.extent(0), width = op.x.extent(1);
  float *const y_data = op.y.f32(), *const rstd_data = op.rstd.f32(), *const sum_data = op.sum.f32();
  const float *const x_data = op.x.f32(), *const branch_data = op.branch.f32(), *const gain_data = op.gain.f32();

  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t at = n * width;
      float* const row_sum = branch_data == nullptr ? nullptr : sum_data + at;
      const float* const row_branch = branch_data == nullptr ? nullptr : branch_data + at;
      const float squares = HWY_DYNAMIC_DISPATCH(sum_of_squares_of_row)(row_sum, x_data + at, row_branch, width);
      rstd_data[n] = 1.0f / std::sqrt(squares / static_cast<float>(width) + op.eps);
      const float* const normalised = row_sum == nullptr ? x_data + at : row_sum;
      HWY_DYNAMIC_DISPATCH(scale_row)(y_data + at, normalised, gain_data, rstd_data[n], width);
    }
  });
}

template <>
void run(const RmsnormBackward& op) {
  const std::int64_t rows = op.x.extent(0), width = op.x.extent(1);
  const bool accumulate = op.accumulate_dx == Accumulate::yes;
  float* const dx_data = op.dx.f32();
  const float *const dy_data = op.dy.f32(), *const x_data = op.x.f32(), *const gain_data = op.gain.f32();
  const float* const rstd_data = op.rstd.f32();

  accumulate_over_rows(op.dgain.f32(), rows, width, [&](float* sums, std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t at = n * width;
      const float r = rstd_data[n];
      const float dot =
          HWY_DYNAMIC_DISPATCH(gain_gradient_of_row)(sums, dy_data + at, x_data + at, gain_data, r, width);
      const float slope = dot * r * r * r / static_cast<float>(width);
      HWY_DYNAMIC_DISPATCH(input_gradient_of_row)
      (dx_data + at, dy_data + at, x_data + at, gain_data, r, slope, accumulate, width);
    }
  });
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
