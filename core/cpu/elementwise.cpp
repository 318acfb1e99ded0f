// Sums, re-layout and SwiGLU (Shazeer, arXiv 2002.05202).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/elementwise.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include <cstring>

#include "core/cpu/lanes-inl.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

/// y += scale * x over [begin, end).
void add_scaled_range(float* y, const float* x, float scale, std::int64_t begin, std::int64_t end) {
  for_lanes(begin, end, [&](auto d, std::int64_t i) HWY_ATTR {
    hn::StoreU(hn::MulAdd(hn::Set(d, scale), hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
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

HWY_EXPORT(add_scaled_range);
HWY_EXPORT(swiglu_row);
HWY_EXPORT(swiglu_gradient_row);

void add_scaled(Tensor y, Tensor x, float scale) {
  VQLM_ASSERT(y.numel() == x.numel());
  float* const y_data = y.f32();
  const float* const x_data = x.f32();
  parallel_blocks(y.numel(), block_elements, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_scaled_range)(y_data, x_data, scale, begin, end);
  });
}

void add_column_sums(Tensor out, Tensor x) {
  VQLM_ASSERT(x.rank() == 2 && out.numel() <= x.extent(1));
  const std::int64_t columns = out.numel(), width = x.extent(1);
  const float* const x_data = x.f32();
  accumulate_over_rows(
      out.f32(), x.extent(0), columns, [&](float* sums, std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) {
          HWY_DYNAMIC_DISPATCH(add_scaled_range)(sums, x_data + n * width, 1.0f, 0, columns);
        }
      });
}

void swap_axes(Tensor dst, Tensor src) {
  VQLM_ASSERT(src.rank() == 3 && dst.dtype() == src.dtype());
  const std::int64_t outer = src.extent(0), inner = src.extent(1);
  VQLM_ASSERT(dst.shape() == Shape({inner, outer, src.extent(2)}));
  const std::size_t run = static_cast<std::size_t>(src.extent(2)) * size_of(src.dtype());
  auto* const to = static_cast<std::byte*>(dst.data());
  const auto* const from = static_cast<const std::byte*>(src.data());
  // Blocks of destination runs: writes are consecutive, reads stride.
  parallel_blocks(inner * outer, rows_per_block(src.extent(2)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t source = i % outer * inner + i / outer;
      std::memcpy(to + static_cast<std::size_t>(i) * run, from + static_cast<std::size_t>(source) * run, run);
    }
  });
}

void swiglu_forward(Tensor y, Tensor gate_up) {
  VQLM_ASSERT(y.rank() == 2);
  const std::int64_t rows = y.extent(0), width = y.extent(1);
  VQLM_ASSERT(gate_up.shape() == Shape({rows, 2 * width}));
  float* const y_data = y.f32();
  const float* const gate = gate_up.f32();
  parallel_blocks(rows, rows_per_block(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float* const row = gate + 2 * n * width;
      HWY_DYNAMIC_DISPATCH(swiglu_row)(y_data + n * width, row, row + width, width);
    }
  });
}

void swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up) {
  VQLM_ASSERT(dy.rank() == 2);
  const std::int64_t rows = dy.extent(0), width = dy.extent(1);
  VQLM_ASSERT(gate_up.shape() == Shape({rows, 2 * width}) && dgate_up.shape() == gate_up.shape());
  float* const dgate = dgate_up.f32();
  const float *const dy_data = dy.f32(), *const gate = gate_up.f32();
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
