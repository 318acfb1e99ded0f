// One product as cuBLASLt describes it, computed on the host.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>

namespace simt {

struct Operations {
  cublasOperation_t transpose_a = CUBLAS_OP_N;
  cublasOperation_t transpose_b = CUBLAS_OP_N;
};

struct Layout {
  cudaDataType type = CUDA_R_32F;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t leading_dimension = 0;
  std::int32_t order = CUBLASLT_ORDER_COL;

  /// As stored, row by row: a column-major matrix is its transpose.
  std::int64_t stored_rows() const { return order == CUBLASLT_ORDER_ROW ? rows : columns; }
  std::int64_t stored_columns() const { return order == CUBLASLT_ORDER_ROW ? columns : rows; }
};

/// D = alpha op(A) op(B) + beta C.
struct Product {
  Operations operations;
  Layout a_layout, b_layout, c_layout, d_layout;
  const void *a, *b, *c;
  void* d;
  float alpha, beta;
  void* workspace;
  std::size_t spoilt_bytes;
  std::int32_t parts = 1;  // of the depth, summed one after the other

  bool a_transposed() const { return operations.transpose_a != CUBLAS_OP_N; }
  bool b_transposed() const { return operations.transpose_b != CUBLAS_OP_N; }
  std::int64_t rows() const { return a_transposed() ? a_layout.columns : a_layout.rows; }
  std::int64_t depth() const { return a_transposed() ? a_layout.rows : a_layout.columns; }
  std::int64_t columns() const { return b_transposed() ? b_layout.rows : b_layout.columns; }

  bool shapes_agree() const {
    const std::int64_t b_depth = b_transposed() ? b_layout.columns : b_layout.rows;
    const auto dense = [](const Layout& layout) { return layout.leading_dimension >= layout.stored_columns(); };
    return depth() == b_depth && d_layout.rows == rows() && d_layout.columns == columns() && c_layout.rows == rows() &&
           c_layout.columns == columns() && dense(a_layout) && dense(b_layout) && dense(c_layout) && dense(d_layout);
  }

  bool types_supported() const {
    if (a_layout.type != b_layout.type || c_layout.type != d_layout.type) return false;
    if (a_layout.type == CUDA_R_32F) return d_layout.type == CUDA_R_32F;
    return a_layout.type == CUDA_R_16BF && (d_layout.type == CUDA_R_16BF || d_layout.type == CUDA_R_32F);
  }

  bool run() const;
  /// Of the result's first number.
  void change_last_bit() const;
};

}  // namespace simt
