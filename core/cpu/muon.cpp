// The optimizer Muon's ops: all bound by memory, so plain loops that the compiler vectorises.
#include "core/ops/muon.h"

#include <algorithm>
#include <cmath>

#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

namespace vqlm::cpu {

template <>
void run(const MuonMomentum& op) {
  const std::int64_t n = op.m.numel();
  const double norm = std::sqrt(*op.norm_squared.as<double>());
  float *const m = op.m.f32(), *const direction = op.direction.f32();
  const float* const grad = op.grad.f32();
  if (!std::isfinite(norm)) {
    std::fill_n(direction, n, 0.0f);
    return;
  }
  const auto scale = static_cast<float>(op.max_norm > 0 && norm > op.max_norm ? op.max_norm / norm : 1.0);
  const float keep = op.momentum, add = 1.0f - keep;  // exact from a half on (Sterbenz)
  parallel_blocks(n, block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float g = scale * grad[i];
      m[i] = keep * m[i] + add * g;
      direction[i] = add * g + keep * m[i];
    }
  });
}

template <>
void run(const AddScaled& op) {
  const std::int64_t n = op.out.numel();
  float* const out = op.out.f32();
  const float* const x = op.x.f32();
  const float* const y = op.y ? op.y.f32() : nullptr;
  float x_scale = op.x_scale;
  if (op.norm_squared) {
    const double norm = std::sqrt(*op.norm_squared.as<double>());
    x_scale = static_cast<float>(static_cast<double>(x_scale) / std::max(norm, AddScaled::smallest_norm));
  }
  const float y_scale = op.y_scale;
  parallel_blocks(n, block_elements, [&](std::int64_t begin, std::int64_t end) {
    if (y == nullptr) {
      for (std::int64_t i = begin; i < end; ++i) out[i] = x_scale * x[i];
    } else {
      for (std::int64_t i = begin; i < end; ++i) out[i] = x_scale * x[i] + y_scale * y[i];
    }
  });
}

template <>
void run(const MuonUpdate& op) {
  if (!std::isfinite(*op.norm_squared.as<double>())) return;
  float* const param = op.param.f32();
  const float* const direction = op.direction.f32();
  const float keep = op.keep_param, step = op.step_size;
  parallel_blocks(op.param.numel(), block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) param[i] = keep * param[i] - step * direction[i];
  });
}

}  // namespace vqlm::cpu
