#include "tests/simt/cublaslt_product.h"

#include <dnnl.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "tests/simt/runtime.h"

namespace simt {
namespace {

/// Stored row by row without gaps, as floats.
std::vector<float> widen(const Layout& layout, const void* data) {
  const std::int64_t rows = layout.stored_rows(), columns = layout.stored_columns();
  std::vector<float> out(static_cast<std::size_t>(rows * columns));
  for (std::int64_t row = 0; row < rows; ++row) {
    float* to = out.data() + row * columns;
    if (layout.type == CUDA_R_32F) {
      std::copy_n(static_cast<const float*>(data) + row * layout.leading_dimension, columns, to);
    } else {
      const std::uint16_t* from = static_cast<const std::uint16_t*>(data) + row * layout.leading_dimension;
      for (std::int64_t i = 0; i < columns; ++i) to[i] = std::bit_cast<float>(std::uint32_t{from[i]} << 16);
    }
  }
  return out;
}

std::uint16_t round_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return 0x7fff;  // CUDA's canonical NaN
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

void narrow(const Layout& layout, void* data, const std::vector<float>& values) {
  const std::int64_t rows = layout.stored_rows(), columns = layout.stored_columns();
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = values.data() + row * columns;
    if (layout.type == CUDA_R_32F) {
      std::copy_n(from, columns, static_cast<float*>(data) + row * layout.leading_dimension);
    } else {
      std::transform(from, from + columns, static_cast<std::uint16_t*>(data) + row * layout.leading_dimension,
                     round_to_bf16);
    }
  }
}

}  // namespace

// oneDNN's product is row-major. With R(X) the stored matrix read row by row, op(X) is R(X) or its transpose, and a
// column-major D is computed as D^T = op(B)^T op(A)^T.
bool Product::run() const {
  if (spoilt_bytes > 0)
    std::memset(workspace, 0xff, spoilt_bytes);  // the library writes there, so it must be nobody else's
  const std::vector<float> left = widen(a_layout, a), right = widen(b_layout, b);
  std::vector<float> values(static_cast<std::size_t>(rows() * columns()));
  const bool a_turned = a_transposed() != (a_layout.order == CUBLASLT_ORDER_COL);
  const bool b_turned = b_transposed() != (b_layout.order == CUBLASLT_ORDER_COL);
  const auto flag = [](bool turned) { return turned ? 'T' : 'N'; };
  dnnl_status_t status = dnnl_success;
  for (std::int32_t part = 0; part < parts && status == dnnl_success; ++part) {
    const std::int64_t begin = depth() * part / parts, size = depth() * (part + 1) / parts - begin;
    const float kept = part == 0 ? 0.0f : 1.0f;
    // Where a stored row is a step along the depth, the part begins so many rows further on.
    const float* const from_left = left.data() + begin * (a_turned ? a_layout.stored_columns() : 1);
    const float* const from_right = right.data() + begin * (b_turned ? 1 : b_layout.stored_columns());
    if (d_layout.order == CUBLASLT_ORDER_ROW) {
      status =
          dnnl_sgemm(flag(a_turned), flag(b_turned), rows(), columns(), size, alpha, from_left,
                     a_layout.stored_columns(), from_right, b_layout.stored_columns(), kept, values.data(), columns());
    } else {
      status = dnnl_sgemm(flag(!b_turned), flag(!a_turned), columns(), rows(), size, alpha, from_right,
                          b_layout.stored_columns(), from_left, a_layout.stored_columns(), kept, values.data(), rows());
    }
  }
  if (status != dnnl_success) runtime_misuse("oneDNN refuses a product");
  if (beta != 0.0f) {
    const std::vector<float> added = widen(c_layout, c);  // c_layout's order is d_layout's
    for (std::size_t i = 0; i < added.size(); ++i) values[i] += beta * added[i];
  }
  narrow(d_layout, d, values);
  return true;
}

void Product::change_last_bit() const {
  static_cast<std::uint8_t*>(d)[0] ^= 1;  // little-endian, as the executor's machines are
}

}  // namespace simt
