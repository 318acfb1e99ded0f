// The optimizer Muon's ops. All are bound by memory; floors at 4.3 TB/s, times not measured:
//   op             bytes                                       shape                 floor
//   muon_momentum  16 n                                        n = 124 M f32         461 us
//   add_scaled     8 n (bf16 and f32 in, bf16 out)             4,096 x 4,096         31 us
//   muon_update    14 n (param read and written, bf16 copy)    n = 124 M             404 us
// Norms are read on the device, so the host does not wait for them.
#include <cmath>
#include <type_traits>

#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/muon.h"

namespace vqlm::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads)
    muon_momentum_kernel(GridDependency dependency, float* m, float* direction, const float* grad,
                         const double* norm_squared, std::int64_t n, std::int64_t head, float keep, float add,
                         float max_norm) {
  dependency.wait();
  const double norm = sqrt(*norm_squared);
  const bool finite = norm < HUGE_VAL;  // false for NaN, too
  const float scale = max_norm > 0 && norm > static_cast<double>(max_norm) ? static_cast<float>(max_norm / norm) : 1.0f;
  for_each_pack<4>(n, head, [=](auto pack_width, std::int64_t i) {
    constexpr int width = decltype(pack_width)::value;
    float m_i[width], d[width], g[width];
    load_pack(m_i, m + i);
    load_pack(g, grad + i);
#pragma unroll
    for (int e = 0; e < width; ++e) {
      g[e] *= scale;
      const float moved = keep * m_i[e] + add * g[e];
      d[e] = finite ? add * g[e] + keep * moved : 0.0f;
      m_i[e] = finite ? moved : m_i[e];
    }
    store_pack(m + i, m_i);
    store_pack(direction + i, d);
  });
}

template <class Out, class In>
__global__ void __launch_bounds__(threads)
    add_scaled_kernel(GridDependency dependency, Out* out, const In* x, const float* y, const double* norm_squared,
                      std::int64_t n, std::int64_t head, float x_scale, float y_scale) {
  dependency.wait();
  if (norm_squared != nullptr) {
    x_scale = static_cast<float>(static_cast<double>(x_scale) / fmax(sqrt(*norm_squared), AddScaled::smallest_norm));
  }
  for_each_pack<4>(n, head, [=](auto pack_width, std::int64_t i) {
    constexpr int width = decltype(pack_width)::value;
    float x_i[width], y_i[width] = {};
    load_pack(x_i, x + i);
    if (y != nullptr) load_pack(y_i, y + i);
#pragma unroll
    for (int e = 0; e < width; ++e) x_i[e] = x_scale * x_i[e] + y_scale * y_i[e];
    store_pack(out + i, x_i);
  });
}

__global__ void __launch_bounds__(threads)
    muon_update_kernel(GridDependency dependency, float* param, __nv_bfloat16* rounded, const float* direction,
                       const double* norm_squared, std::int64_t n, std::int64_t head, float keep, float step) {
  dependency.wait();
  if (!(*norm_squared < HUGE_VAL)) return;  // infinite or NaN
  for_each_pack<4>(n, head, [=](auto pack_width, std::int64_t i) {
    constexpr int width = decltype(pack_width)::value;
    float p[width], d[width];
    load_pack(p, param + i);
    load_pack(d, direction + i);
#pragma unroll
    for (int e = 0; e < width; ++e) p[e] = keep * p[e] - step * d[e];
    store_pack(param + i, p);
    if (rounded != nullptr) store_pack(rounded + i, p);
  });
}

template <class Out, class In>
void add_scaled(const Context& context, const AddScaled& op, Out* out, const In* x) {
  const std::int64_t n = op.out.numel();
  // An absent y does not matter for alignment: out stands in.
  const float* const y = op.y ? op.y.f32() : nullptr;
  const std::int64_t head = y ? elements_before_packs<4>(n, out, x, y) : elements_before_packs<4>(n, out, x);
  launch(add_scaled_kernel<Out, In>, {flat_blocks<4>(context, n), threads, 0, context.stream}, out, x, y,
         op.norm_squared.as<double>(), n, head, op.x_scale, op.y_scale);
}

}  // namespace

template <>
void run(const Context& context, const MuonMomentum& op) {
  const std::int64_t n = op.m.numel();
  if (n == 0) return;
  launch(muon_momentum_kernel, {flat_blocks<4>(context, n), threads, 0, context.stream}, op.m.f32(), op.direction.f32(),
         op.grad.f32(), op.norm_squared.as<double>(), n,
         elements_before_packs<4>(n, op.m.f32(), op.direction.f32(), op.grad.f32()), op.momentum, 1.0f - op.momentum,
         op.max_norm);
}

template <>
void run(const Context& context, const AddScaled& op) {
  if (op.out.numel() == 0) return;
  const bool to_f32 = op.out.dtype() == DType::f32, from_f32 = op.x.dtype() == DType::f32;
  if (to_f32 && from_f32) add_scaled(context, op, op.out.f32(), op.x.f32());
  if (to_f32 && !from_f32) add_scaled(context, op, op.out.f32(), bf16(op.x));
  if (!to_f32 && from_f32) add_scaled(context, op, bf16(op.out), op.x.f32());
  if (!to_f32 && !from_f32) add_scaled(context, op, bf16(op.out), bf16(op.x));
}

template <>
void run(const Context& context, const MuonUpdate& op) {
  const std::int64_t n = op.param.numel();
  if (n == 0) return;
  const std::int64_t head = op.rounded
                                ? elements_before_packs<4>(n, op.param.f32(), op.direction.f32(), bf16(op.rounded))
                                : elements_before_packs<4>(n, op.param.f32(), op.direction.f32());
  launch(muon_update_kernel, {flat_blocks<4>(context, n), threads, 0, context.stream}, op.param.f32(), bf16(op.rounded),
         op.direction.f32(), op.norm_squared.as<double>(), n, head, op.keep_param, op.step_size);
}

}  // namespace vqlm::cuda
