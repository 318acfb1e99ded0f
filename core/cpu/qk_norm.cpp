// RMSNorm of query and key heads (core/ops/qk_norm.h). A row's groups are short and stay in the first-level cache from the sum
// of squares to the scaling.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/qk_norm.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cmath>
#include <cstring>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/ops/qk_norm.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// y = x * rstd * gain.
void qk_scale(float* y, const float* x, const float* gain, float rstd, std::int64_t n) {
  for_lanes(0, n, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto xhat = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, rstd));
    hn::StoreU(hn::Mul(xhat, hn::LoadU(d, gain + i)), d, y + i);
  });
}

/// sum(dy * gain * x).
float qk_dot(const float* dy, const float* gain, const float* x, std::int64_t n) {
  return sum_lanes(n, [&](auto d, std::int64_t i, auto total) HWY_ATTR {
    const auto dy_x = hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, x + i));
    return hn::MulAdd(dy_x, hn::LoadU(d, gain + i), total);
  });
}

/// dgain += dy * x * rstd, and dy becomes rstd * dy * gain - slope * x.
void qk_gradient(float* dy, float* dgain, const float* x, const float* gain, float rstd, float slope, std::int64_t n) {
  for_lanes(0, n, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto dy_i = hn::LoadU(d, dy + i), x_i = hn::LoadU(d, x + i), r = hn::Set(d, rstd);
    hn::StoreU(hn::MulAdd(hn::Mul(dy_i, x_i), r, hn::LoadU(d, dgain + i)), d, dgain + i);
    const auto g = hn::Mul(dy_i, hn::LoadU(d, gain + i));
    hn::StoreU(hn::MulSub(g, r, hn::Mul(x_i, hn::Set(d, slope))), d, dy + i);
  });
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(qk_scale);
HWY_EXPORT(qk_dot);
HWY_EXPORT(qk_gradient);

namespace {

/// body(row, group index) for all groups of all rows.
template <class Body>
void for_groups(const AttentionShape& shape, std::int64_t groups, const Body& body) {
  parallel_blocks(shape.batch * shape.seq_len, rows_per_block(shape.row()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      for (std::int64_t g = 0; g < groups; ++g) body(n, g);
    }
  });
}

/// 1 / rms of a group of `size` numbers on each of `ranks` ranks.
float rstd_of(float squares, std::int64_t size, int ranks, float eps) {
  return 1.0f / std::sqrt(squares / static_cast<float>(size * ranks) + eps);
}

}  // namespace

template <>
void run(const QkSquares& op) {
  const std::int64_t groups = op.squares.extent(1), row = op.shape.row();
  float* const squares = op.squares.f32();
  const float* const x_data = op.x.f32();
  for_groups(op.shape, groups, [&](std::int64_t n, std::int64_t g) {
    const QkGroup group = qk_group(op.shape, groups, g);
    const float* const x = x_data + n * row + group.begin;
    squares[n * groups + g] = row_dot(x, x, group.size);
  });
}

template <>
void run(const QkNormForward& op) {
  const std::int64_t groups = op.squares.extent(1), row = op.shape.row();
  const std::int64_t values = static_cast<std::int64_t>(op.shape.heads + op.shape.kv_heads) * op.shape.head_dim;
  float* const y_data = op.qkv.f32();
  const float *const x_data = op.x.f32(), *const squares = op.squares.f32();
  const float *const q_gain = op.q_gain.f32(), *const k_gain = op.k_gain.f32();
  for_groups(op.shape, groups, [&](std::int64_t n, std::int64_t g) {
    const QkGroup group = qk_group(op.shape, groups, g);
    const std::int64_t at = n * row + group.begin;
    const float rstd = rstd_of(squares[n * groups + g], group.size, op.ranks, op.eps);
    HWY_DYNAMIC_DISPATCH(qk_scale)(y_data + at, x_data + at, group.key ? k_gain : q_gain, rstd, group.size);
    if (g + 1 < groups || y_data == x_data) return;
    std::memcpy(y_data + n * row + values, x_data + n * row + values,
                static_cast<std::size_t>(row - values) * sizeof(float));
  });
}

template <>
void run(const QkDots& op) {
  const std::int64_t groups = op.dots.extent(1), row = op.shape.row();
  float* const dots = op.dots.f32();
  const float *const dy_data = op.dqkv.f32(), *const x_data = op.x.f32();
  const float *const q_gain = op.q_gain.f32(), *const k_gain = op.k_gain.f32();
  for_groups(op.shape, groups, [&](std::int64_t n, std::int64_t g) {
    const QkGroup group = qk_group(op.shape, groups, g);
    const std::int64_t at = n * row + group.begin;
    dots[n * groups + g] =
        HWY_DYNAMIC_DISPATCH(qk_dot)(dy_data + at, group.key ? k_gain : q_gain, x_data + at, group.size);
  });
}

template <>
void run(const QkNormBackward& op) {
  const std::int64_t groups = op.squares.extent(1), row = op.shape.row();
  const std::int64_t rows = op.shape.batch * op.shape.seq_len;
  float* const dy_data = op.dqkv.f32();
  const float *const x_data = op.x.f32(), *const squares = op.squares.f32(), *const dots = op.dots.f32();
  for (const bool key : {false, true}) {
    const Tensor& gain = key ? op.k_gain : op.q_gain;
    const float* const gain_data = gain.f32();
    float* const dgain = (key ? op.k_dgain : op.q_dgain).f32();
    accumulate_over_rows(dgain, rows, gain.numel(), [&](float* sums, std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        for (std::int64_t g = 0; g < groups; ++g) {
          const QkGroup group = qk_group(op.shape, groups, g);
          if (group.key != key) continue;
          const std::int64_t at = n * row + group.begin;
          const float r = rstd_of(squares[n * groups + g], group.size, op.ranks, op.eps);
          const float slope = dots[n * groups + g] * r * r * r / static_cast<float>(group.size * op.ranks);
          HWY_DYNAMIC_DISPATCH(qk_gradient)(dy_data + at, sums, x_data + at, gain_data, r, slope, group.size);
        }
      }
    });
  }
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
