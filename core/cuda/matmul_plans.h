// Plans of matrix products: for each shape, layout, dtype and alignment that was seen, cuBLASLt's descriptors and the
// algorithm that its heuristics put first. Not the fastest of several timed ones: which one wins would differ from run to
// run, and with it the order of sums, but results must be the same in every run.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>

#include "core/buffer.h"

namespace vqlm::cuda {

/// Throws Error "cuBLASLt: <call>: <status>" unless status is CUBLAS_STATUS_SUCCESS.
void cublas_check(cublasStatus_t status, const char* call);

/// One product in cuBLASLt's words: column-major d (rows, columns) = op(a) op(b) + beta d, depth K.
struct ProductShape {
  std::int64_t rows = 0, columns = 0, depth = 0;
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cudaDataType operands = CUDA_R_16BF, result = CUDA_R_16BF;
  int alignment_a = 256, alignment_b = 256, alignment_d = 256;  // bytes, powers of two up to 256
  std::int64_t leading_a = 0, leading_b = 0, leading_d = 0;     // of the stored matrices; 0: no gaps

  /// a, b and d as they are stored.
  std::int64_t rows_a() const { return transpose_a == CUBLAS_OP_N ? rows : depth; }
  std::int64_t columns_a() const { return transpose_a == CUBLAS_OP_N ? depth : rows; }
  std::int64_t rows_b() const { return transpose_b == CUBLAS_OP_N ? depth : columns; }
  std::int64_t columns_b() const { return transpose_b == CUBLAS_OP_N ? columns : depth; }

  auto key() const {
    return std::tie(rows, columns, depth, transpose_a, transpose_b, operands, result, alignment_a, alignment_b,
                    alignment_d, leading_a, leading_b, leading_d);
  }
  bool operator<(const ProductShape& other) const { return key() < other.key(); }
  /// For messages, in row-major words: "128 x 50257 x 768 (bf16 to fp32, rows of 768 and 50257, aligned to 2 and 256 bytes)".
  std::string str() const;
};

class MatmulPlans {
 public:
  /// `workspace` is for split-K sums; it must outlive the plans.
  MatmulPlans(void* workspace, std::size_t workspace_bytes);
  ~MatmulPlans();
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;

  /// Whether cuBLASLt has an algorithm for the shape. A shape's first call makes its plan (about 50 us of the host).
  bool supports(const ProductShape& shape);
  /// True once for each shape.
  bool not_yet_named(const ProductShape& shape) { return named_.insert(shape).second; }
  /// Enqueues the product on `stream`. Throws Error, naming it, where there is no algorithm.
  void run(const ProductShape& shape, const void* a, const void* b, void* d, float beta, cudaStream_t stream);

  /// NVIDIA's advice for the workspace: 64 MiB from Hopper on, 32 MiB before, whose kernels split K less.
  static std::size_t workspace_bytes(int compute_capability);

 private:
  struct Plan;
  const Plan& plan(const ProductShape& shape);

  void* workspace_;
  std::size_t workspace_bytes_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<ProductShape, std::unique_ptr<Plan>> plans_;
  std::set<ProductShape> named_;  // in the log, for want of an algorithm
};

}  // namespace vqlm::cuda
