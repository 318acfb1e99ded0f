// Matrix products by cuBLASLt: bf16 operands with fp32 sums on tensor cores, or fp32 operands.
//
// Operations 2 M N K; bytes (M K + K N) A + M N C, read once each. Floor on an H200 at 790 TFLOP/s (measured there for bf16
// products): 2 M N K / 790e12 seconds. Own figures: not measured.
//
// Row-major c (M, N) is column-major c^T (N, M), so what is computed is c^T = op(b)^T op(a)^T with b in first place and
// each operand transposed exactly where it is here.
#include <algorithm>
#include <bit>

#include "core/cuda/cuda_check.h"
#include "core/cuda/matmul_plans.h"
#include "core/cuda/ops.h"

namespace vqlm::cuda {
namespace {

cudaDataType data_type(Tensor x) {
  VQLM_ASSERT(x.dtype() == DType::f32 || x.dtype() == DType::bf16);
  return x.dtype() == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// The power of two that the tensor's address divides by, at most 256 (cuBLASLt's own default).
int alignment(Tensor x) {
  const auto address = reinterpret_cast<std::uintptr_t>(x.data());
  return 1 << std::min(std::countr_zero(address), 8);
}

}  // namespace

void matmul(const Context& context, Tensor c, Tensor a, Tensor b, Transpose ta, Transpose tb,
            Accumulate accumulate) {
  VQLM_ASSERT(c.rank() == 2 && a.rank() == 2 && b.rank() == 2);
  const std::int64_t m = c.extent(0), n = c.extent(1);
  const std::int64_t k = ta == Transpose::yes ? a.extent(0) : a.extent(1);
  VQLM_ASSERT(a.shape() == (ta == Transpose::yes ? Shape({k, m}) : Shape({m, k})));
  VQLM_ASSERT(b.shape() == (tb == Transpose::yes ? Shape({n, k}) : Shape({k, n})));
  VQLM_ASSERT(a.dtype() == b.dtype() && (a.dtype() == DType::bf16 || c.dtype() == DType::f32));
  if (m == 0 || n == 0) return;
  if (k == 0) {  // an empty sum; zero is zero bits in both dtypes
    if (accumulate == Accumulate::no) {
      cuda_check(cudaMemsetAsync(c.data(), 0, c.bytes(), context.stream), "cudaMemsetAsync");
    }
    return;
  }
  const auto operation = [](Transpose transpose) {
    return transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
  };
  const ProductShape shape{.rows = n,
                           .columns = m,
                           .depth = k,
                           .transpose_a = operation(tb),
                           .transpose_b = operation(ta),
                           .operands = data_type(a),
                           .result = data_type(c),
                           .alignment_a = alignment(b),
                           .alignment_b = alignment(a),
                           .alignment_d = alignment(c)};
  context.plans->run(shape, b.data(), a.data(), c.data(), accumulate == Accumulate::yes ? 1.0f : 0.0f,
                     context.stream);
}

}  // namespace vqlm::cuda
