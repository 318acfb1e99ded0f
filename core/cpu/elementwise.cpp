// Sums, re-layout and SwiGLU (Shazeer, arXiv 2002.05202).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/elementwise.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cstring>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/ops/elementwise.h"
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

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(add_row);
HWY_EXPORT(swiglu_row);
HWY_EXPORT(swiglu_gradient_row);

template <>
void run(const AddColumnSums& op) {
  const std::int64_t columns = op.out.numel(), width = op.x.extent(1);
  const float* const x_data = op.x.f32();
  accumulate_over_rows(op.out.f32(), op.x.extent(0), columns, [&](float* sums, std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      HWY_DYNAMIC_DISPATCH(add_row)(sums, x_data + n * width, columns);
    }
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

template <>
void run(const SwigluForward& op) {
  const std::int64_t rows = op.y.extent(0), width = op.y.extent(1);
  float* const y_data = op.y.f32();
  const float* const gate = op.gate_up.f32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float* const row = gate + 2 * n * width;
      HWY_DYNAMIC_DISPATCH(swiglu_row)(y_data + n * width, row, row + width, width);
    }
  });
}

template <>
void run(const SwigluBackward& op) {
  const std::int64_t rows = op.dy.extent(0), width = op.dy.extent(1);
  float* const dgate = op.dgate_up.f32();
  const float *const dy_data = op.dy.f32(), *const gate = op.gate_up.f32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const std::int64_t at = 2 * n * width;
      HWY_DYNAMIC_DISPATCH(swiglu_gradient_row)
      (dgate + at, dgate + at + width, dy_data + n * width, gate + at, gate + at + width, width);
    }
  });
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
