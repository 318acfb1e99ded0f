// oneDNN's dnnl_sgemm for products inside other ops: row-major with leading dimensions, so tiles of larger tensors are
// multiplied in place. Inside an OpenMP parallel region it runs on the calling thread alone.
#pragma once

#include <oneapi/dnnl/dnnl.h>

#include <cstdint>

#include "core/ops/matmul.h"

namespace vqlm::cpu {

/// A matrix or a tile of one: element (i, j) at data[i * stride + j].
struct MatrixView {
  const float* data;
  std::int64_t stride;
};

/// c (m, n), rows c_stride apart, = alpha * op(a) (m, k) op(b) (k, n) + beta * c; c is not read where beta is 0.
inline void sgemm(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixView a,
                  MatrixView b, float beta, float* c, std::int64_t c_stride) {
  const auto flag = [](Transpose t) { return t == Transpose::yes ? 'T' : 'N'; };
  const dnnl_status_t status =
      dnnl_sgemm(flag(ta), flag(tb), m, n, k, alpha, a.data, a.stride, b.data, b.stride, beta, c, c_stride);
  VQLM_ASSERT(status == dnnl_success);  // it refuses only sizes and strides, which are the caller's
}

}  // namespace vqlm::cpu
