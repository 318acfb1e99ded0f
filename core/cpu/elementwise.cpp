// Sums, re-layout, SwiGLU and GeGLU (Shazeer, arXiv 2002.05202), SiLU.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/elementwise.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cstring>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/ops/elementwise.h"
#include "core/ops/silu.h"
#include "core/ops/swiglu.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// y (width) += x.
void add_row(float* y, const float* x, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  });
}

/// out (width) = a + b.
void sum_row(float* out, const float* a, const float* b, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, out + i);
  });
}

/// sigmoid(x) and 1 - sigmoid(x), both to full relative precision: e = exp(-|x|) cannot overflow, and each of
/// the two is 1 / (1 + e) or e / (1 + e).
template <class D, class V>
HWY_INLINE void sigmoid_and_complement(D d, V x, V& sigmoid, V& complement) {
  const V e = hn::Exp(d, hn::Neg(hn::Abs(x)));
  const V larger = hn::Div(hn::Set(d, 1.0f), hn::Add(hn::Set(d, 1.0f), e));
  const V smaller = hn::Mul(e, larger);
  const auto negative = hn::Lt(x, hn::Zero(d));
  sigmoid = hn::IfThenElse(negative, smaller, larger);
  complement = hn::IfThenElse(negative, larger, smaller);
}

/// y (width) = silu(gate) * up for one row.
void swiglu_row(float* y, const float* gate, const float* up, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    auto sigmoid = g, complement = g;
    sigmoid_and_complement(d, g, sigmoid, complement);
    hn::StoreU(hn::Mul(hn::Mul(g, sigmoid), hn::LoadU(d, up + i)), d, y + i);
  });
}

/// dup = dy * silu(gate), dgate = dy * up * sigmoid * (1 + gate * (1 - sigmoid)) for one row.
void swiglu_gradient_row(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                         std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    const auto u = hn::LoadU(d, up + i);
    const auto dy_i = hn::LoadU(d, dy + i);
    auto sigmoid = g, complement = g;
    sigmoid_and_complement(d, g, sigmoid, complement);
    const auto dy_sigmoid = hn::Mul(dy_i, sigmoid);
    hn::StoreU(hn::Mul(dy_sigmoid, g), d, dup + i);
    hn::StoreU(hn::Mul(hn::Mul(dy_sigmoid, u), hn::MulAdd(g, complement, hn::Set(d, 1.0f))), d, dgate + i);
  });
}

/// y (width) = x + silu(z).
void silu_residual_row(float* y, const float* x, const float* z, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto v = hn::LoadU(d, z + i);
    auto sigmoid = v, complement = v;
    sigmoid_and_complement(d, v, sigmoid, complement);
    hn::StoreU(hn::MulAdd(v, sigmoid, hn::LoadU(d, x + i)), d, y + i);
  });
}

/// dz (width) = dy * sigmoid * (1 + z * (1 - sigmoid)).
void silu_gradient_row(float* dz, const float* dy, const float* z, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto v = hn::LoadU(d, z + i);
    auto sigmoid = v, complement = v;
    sigmoid_and_complement(d, v, sigmoid, complement);
    const auto bend = hn::MulAdd(v, complement, hn::Set(d, 1.0f));
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, dy + i), sigmoid), bend), d, dz + i);
  });
}

/// GELU in its tanh form is x sigmoid(z), z = 2 sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks, Gimpel, arXiv 1606.08415).
constexpr float gelu_linear = 1.5957691216057308f;
constexpr float gelu_cubic = 0.044715f * gelu_linear;

/// y (width) = gelu(gate) * up for one row.
void geglu_row(float* y, const float* gate, const float* up, std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    const auto z = hn::Mul(g, hn::MulAdd(hn::Mul(g, g), hn::Set(d, gelu_cubic), hn::Set(d, gelu_linear)));
    auto sigmoid = g, complement = g;
    sigmoid_and_complement(d, z, sigmoid, complement);
    hn::StoreU(hn::Mul(hn::Mul(g, sigmoid), hn::LoadU(d, up + i)), d, y + i);
  });
}

/// dup = dy * gelu(gate), dgate = dy * up * sigmoid * (1 + gate * z' * (1 - sigmoid)) for one row.
void geglu_gradient_row(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                        std::int64_t width) {
  for_lanes(0, width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::LoadU(d, gate + i);
    const auto u = hn::LoadU(d, up + i);
    const auto square = hn::Mul(g, g), linear = hn::Set(d, gelu_linear);
    const auto z = hn::Mul(g, hn::MulAdd(square, hn::Set(d, gelu_cubic), linear));
    const auto slope = hn::MulAdd(square, hn::Set(d, 3 * gelu_cubic), linear);
    auto sigmoid = g, complement = g;
    sigmoid_and_complement(d, z, sigmoid, complement);
    const auto dy_sigmoid = hn::Mul(hn::LoadU(d, dy + i), sigmoid);
    hn::StoreU(hn::Mul(dy_sigmoid, g), d, dup + i);
    const auto bend = hn::MulAdd(hn::Mul(g, slope), complement, hn::Set(d, 1.0f));
    hn::StoreU(hn::Mul(hn::Mul(dy_sigmoid, u), bend), d, dgate + i);
  });
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(add_row);
HWY_EXPORT(swiglu_row);
HWY_EXPORT(swiglu_gradient_row);
HWY_EXPORT(sum_row);
HWY_EXPORT(silu_residual_row);
HWY_EXPORT(silu_gradient_row);
HWY_EXPORT(geglu_row);
HWY_EXPORT(geglu_gradient_row);

template <>
void run(const AddColumnSums& op) {
  const std::int64_t columns = op.out.numel(), width = op.x.extent(1);
  const float* const x_data = op.x.f32() + op.first;
  accumulate_over_rows(op.out.f32(), op.x.extent(0), columns, [&](float* sums, std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      HWY_DYNAMIC_DISPATCH(add_row)(sums, x_data + n * width, columns);
    }
  });
}

template <>
void run(const AddBias& op) {
  const std::int64_t columns = op.bias.numel(), width = op.x.extent(1);
  float* const x_data = op.x.f32() + op.first;
  const float* const bias = op.bias.f32();
  parallel_blocks(op.x.extent(0), rows_per_block(columns), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) HWY_DYNAMIC_DISPATCH(add_row)(x_data + n * width, bias, columns);
  });
}

template <>
void run(const Add& op) {
  float* const out = op.out.f32();
  const float *const a = op.a.f32(), *const b = op.b.f32();
  parallel_blocks(op.out.numel(), block_elements, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(sum_row)(out + begin, a + begin, b + begin, end - begin);
  });
}

template <>
void run(const Scale& op) {
  float* const x = op.x.f32();
  parallel_blocks(op.x.numel(), block_elements,
                  [&](std::int64_t begin, std::int64_t end) { row_scale(x + begin, op.factor, end - begin); });
}

template <>
void run(const SiluResidualForward& op) {
  float* const y = op.y.f32();
  const float *const x = op.x.f32(), *const z = op.z.f32();
  parallel_blocks(op.y.numel(), block_elements, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(silu_residual_row)(y + begin, x + begin, z + begin, end - begin);
  });
}
template <>
void run(const SiluResidualBackward& op) {
  float* const dz = op.dz.f32();
  const float *const dy = op.dy.f32(), *const z = op.z.f32();
  parallel_blocks(op.dz.numel(), block_elements, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(silu_gradient_row)(dz + begin, dy + begin, z + begin, end - begin);
  });
}

template <>
void run(const SwapAxes& op) {
  const std::int64_t outer = op.src.extent(0), inner = op.src.extent(1);
  const std::size_t bytes = static_cast<std::size_t>(op.src.extent(2)) * size_of(op.src.dtype());
  auto* const to = static_cast<std::byte*>(op.dst.data());
  const auto* const from = static_cast<const std::byte*>(op.src.data());
  // Blocks of destination runs: writes are consecutive, reads stride.
  parallel_blocks(inner * outer, rows_per_block(op.src.extent(2)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t source = i % outer * inner + i / outer;
      std::memcpy(to + static_cast<std::size_t>(i) * bytes, from + static_cast<std::size_t>(source) * bytes, bytes);
    }
  });
}

namespace {

/// row(y, gate, up, width) for all rows of a gated unit.
template <class Row>
void gated_forward(Tensor y, Tensor gate_up, const Row& row) {
  const std::int64_t rows = y.extent(0), width = y.extent(1);
  float* const y_data = y.f32();
  const float* const gate = gate_up.f32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float* const at = gate + 2 * n * width;
      row(y_data + n * width, at, at + width, width);
    }
  });
}

/// row(dgate, dup, dy, gate, up, width) for all rows.
template <class Row>
void gated_backward(Tensor dgate_up, Tensor dy, Tensor gate_up, const Row& row) {
  const std::int64_t rows = dy.extent(0), width = dy.extent(1);
  float* const dgate = dgate_up.f32();
  const float *const dy_data = dy.f32(), *const gate = gate_up.f32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t at = 2 * n * width;
      row(dgate + at, dgate + at + width, dy_data + n * width, gate + at, gate + at + width, width);
    }
  });
}

}  // namespace

template <>
void run(const SwigluForward& op) {
  gated_forward(op.y, op.gate_up, [](auto... args) { HWY_DYNAMIC_DISPATCH(swiglu_row)(args...); });
}
template <>
void run(const SwigluBackward& op) {
  gated_backward(op.dgate_up, op.dy, op.gate_up,
                 [](auto... args) { HWY_DYNAMIC_DISPATCH(swiglu_gradient_row)(args...); });
}
template <>
void run(const GegluForward& op) {
  gated_forward(op.y, op.gate_up, [](auto... args) { HWY_DYNAMIC_DISPATCH(geglu_row)(args...); });
}
template <>
void run(const GegluBackward& op) {
  gated_backward(op.dgate_up, op.dy, op.gate_up,
                 [](auto... args) { HWY_DYNAMIC_DISPATCH(geglu_gradient_row)(args...); });
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
