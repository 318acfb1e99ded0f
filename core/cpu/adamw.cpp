// AdamW with decoupled weight decay (arXiv 1711.05101) and the sum of squares for clipping by the global
// norm.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/adamw.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cmath>
#include <optional>
#include <vector>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/ops/adamw.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

void adamw_range(float* param, float* m, float* v, const float* grad, const AdamWCoefficients& k, float grad_scale,
                 std::int64_t begin, std::int64_t end) {
  for_lanes(begin, end, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, grad + i), hn::Set(d, grad_scale));
    const auto m_i = hn::MulAdd(hn::Set(d, k.keep_m), hn::LoadU(d, m + i), hn::Mul(hn::Set(d, k.add_m), g));
    const auto v_i = hn::MulAdd(hn::Set(d, k.keep_v), hn::LoadU(d, v + i), hn::Mul(hn::Set(d, k.add_v), hn::Mul(g, g)));
    const auto denominator = hn::MulAdd(hn::Sqrt(v_i), hn::Set(d, k.root_scale), hn::Set(d, k.eps));
    const auto update = hn::Div(hn::Mul(hn::Set(d, k.step_size), m_i), denominator);
    const auto decayed = hn::Mul(hn::LoadU(d, param + i), hn::Set(d, k.keep_param));
    hn::StoreU(m_i, d, m + i);
    hn::StoreU(v_i, d, v + i);
    hn::StoreU(hn::Sub(decayed, update), d, param + i);
  });
}

/// The sum of x^2 over [begin, end) in double; a float's square is exact there.
double sum_of_squares(const float* x, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  std::int64_t i = begin;
  for (; i + 4 * lanes <= end; i += 4 * lanes) {
    const auto x0 = hn::PromoteTo(d, hn::LoadU(narrow, x + i));
    const auto x1 = hn::PromoteTo(d, hn::LoadU(narrow, x + i + lanes));
    const auto x2 = hn::PromoteTo(d, hn::LoadU(narrow, x + i + 2 * lanes));
    const auto x3 = hn::PromoteTo(d, hn::LoadU(narrow, x + i + 3 * lanes));
    s0 = hn::MulAdd(x0, x0, s0);
    s1 = hn::MulAdd(x1, x1, s1);
    s2 = hn::MulAdd(x2, x2, s2);
    s3 = hn::MulAdd(x3, x3, s3);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < end; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(adamw_range);
HWY_EXPORT(sum_of_squares);

template <>
void run(const AddSumOfSquares& op) {
  const std::int64_t n = op.x.numel();
  std::vector<double> partial(static_cast<std::size_t>((n + block_elements - 1) / block_elements));
  const float* const data = op.x.f32();
  parallel_blocks(n, block_elements, [&](std::int64_t begin, std::int64_t end) {
    partial[static_cast<std::size_t>(begin / block_elements)] = HWY_DYNAMIC_DISPATCH(sum_of_squares)(data, begin, end);
  });
  double total = 0;
  for (double sum : partial) total += sum;
  *op.out.as<double>() += total;
}

namespace {

/// What clipping multiplies gradients by; nothing where the norm is not finite.
std::optional<float> gradient_scale(const Tensor& norm_squared, float max_norm) {
  const double norm = norm_squared ? std::sqrt(*norm_squared.as<double>()) : 0.0;
  if (!std::isfinite(norm)) return std::nullopt;
  return static_cast<float>(max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0);
}

}  // namespace

template <>
void run(const AdamWRows& op) {
  const auto grad_scale = gradient_scale(op.norm_squared, op.step.max_norm);
  if (!grad_scale) return;
  const std::int64_t width = op.param.extent(1), table_rows = op.param.extent(0);
  const AdamWCoefficients coefficients = adamw_coefficients(op.step);
  const std::int32_t* const row = op.rows.i32();
  parallel_blocks(op.rows.numel(), rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      VQLM_ASSERT(row[i] >= 0 && row[i] < table_rows);
      const std::int64_t at = row[i] * width;
      HWY_DYNAMIC_DISPATCH(adamw_range)
      (op.param.f32() + at, op.m.f32() + at, op.v.f32() + at, op.grad.f32() + i * width, coefficients, *grad_scale, 0,
       width);
    }
  });
}

template <>
void run(const AdamW& op) {
  const std::int64_t n = op.param.numel();
  const auto grad_scale = gradient_scale(op.norm_squared, op.step.max_norm);
  if (!grad_scale) return;
  const AdamWCoefficients coefficients = adamw_coefficients(op.step);
  float *const param_data = op.param.f32(), *const m_data = op.m.f32(), *const v_data = op.v.f32();
  const float* const grad_data = op.grad.f32();
  parallel_blocks(n, block_elements, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw_range)
    (param_data, m_data, v_data, grad_data, coefficients, *grad_scale, begin, end);
  });
}

template <>
void run(const MovingAverage& op) {
  const std::int64_t n = op.average.numel();
  if (!std::isfinite(*op.norm_squared.as<double>())) return;
  float* const y = op.average.f32();
  const float* const added = op.x.f32();
  const float decay = op.decay, add = 1.0f - decay;  // exact from a half on (Sterbenz)
  parallel_blocks(n, block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = decay * y[i] + add * added[i];
  });
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
