// Plans of matrix products: for each shape, layout, dtype and alignment that was seen, cuBLASLt's descriptors and the
// algorithm that its heuristics put first. Not the fastest of several timed ones: which one wins would differ from run to
// run, and with it the order of sums, but results must be the same in every run.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
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

  auto key() const {
    return std::tie(rows, columns, depth, transpose_a, transpose_b, operands, result, alignment_a,
                    alignment_b, alignment_d);
  }
  bool operator<(const ProductShape& other) const { return key() < other.key(); }
};

class MatmulPlans {
 public:
  /// `workspace` is for split-K sums; it must outlive the plans.
  MatmulPlans(void* workspace, std::size_t workspace_bytes);
  ~MatmulPlans();
  MatmulPlans(const MatmulPlans&) = delete;
  MatmulPlans& operator=(const MatmulPlans&) = delete;

  /// Enqueues the product on `stream`. A shape's first call makes its plan (about 50 us of the host).
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
};

}  // namespace vqlm::cuda
