#include "train/engine/newton_schulz.h"

#include <algorithm>
#include <utility>

namespace vqlm {
namespace {

Buffer scratch(Backend& backend, std::int64_t elements, DType dtype) {
  return backend.allocate(static_cast<std::size_t>(elements) * size_of(dtype), MemoryUse::workspace);
}

}  // namespace

NewtonSchulz::NewtonSchulz(Backend& backend, std::int64_t elements, std::int64_t side)
    : backend_(backend),
      x_(scratch(backend, elements, backend.activation_dtype())),
      other_(scratch(backend, elements, backend.activation_dtype())),
      product_(scratch(backend, elements, DType::f32)),
      gram_(scratch(backend, side * side, DType::f32)),
      squared_(scratch(backend, side * side, DType::f32)),
      gram_rounded_(scratch(backend, side * side, backend.activation_dtype())),
      polynomial_(scratch(backend, side * side, backend.activation_dtype())) {}

void NewtonSchulz::run(Tensor x, const Layout& layout, Tensor norm_squared) {
  const DType dtype = backend_.activation_dtype();
  const std::int64_t rows = layout.rows, columns = layout.columns, blocks = layout.blocks, width = columns / blocks;
  VQLM_ASSERT(x.numel() == rows * columns && columns % blocks == 0);
  Tensor matrix = x_.view({rows, columns}, dtype), other = other_.view({rows, columns}, dtype);
  backend_.run(AddSumOfSquares{.out = norm_squared, .x = x});
  backend_.run(AddScaled{.out = matrix, .x = x, .norm_squared = norm_squared});
  if (blocks > 1) {
    backend_.run(SwapAxes{.dst = other.view({rows, blocks, width}), .src = matrix.view({blocks, rows, width})});
    std::swap(matrix, other);
  }
  for (int i = 0; i < steps; ++i) step(matrix);
  if (blocks > 1) {
    backend_.run(SwapAxes{.dst = other.view({blocks, rows, width}), .src = matrix.view({rows, blocks, width})});
    std::swap(matrix, other);
  }
  backend_.run(AddScaled{.out = x, .x = matrix});
}

void NewtonSchulz::step(Tensor x) {
  const DType dtype = backend_.activation_dtype();
  const bool wide = x.extent(0) <= x.extent(1);
  const std::int64_t side = std::min(x.extent(0), x.extent(1));
  const Tensor gram = gram_.view({side, side}), squared = squared_.view({side, side});
  const Tensor rounded = gram_rounded_.view({side, side}, dtype), polynomial = polynomial_.view({side, side}, dtype);
  const Tensor product = product_.view(x.shape());
  backend_.run(Matmul{.c = gram,
                      .a = x,
                      .b = x,
                      .ta = wide ? Transpose::no : Transpose::yes,
                      .tb = wide ? Transpose::yes : Transpose::no,
                      .accumulate = Accumulate::no});
  backend_.round_to_activation(rounded, gram);
  backend_.run(Matmul{.c = squared, .a = rounded, .b = rounded, .accumulate = Accumulate::no});
  backend_.run(AddScaled{.out = polynomial, .x = gram, .y = squared, .x_scale = b, .y_scale = c});
  backend_.run(
      Matmul{.c = product, .a = wide ? polynomial : x, .b = wide ? x : polynomial, .accumulate = Accumulate::no});
  backend_.run(AddScaled{.out = x, .x = x, .y = product, .x_scale = a, .y_scale = 1});
}

}  // namespace vqlm
