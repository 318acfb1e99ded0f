// Matrix products by oneDNN's sgemm, which takes row-major matrices with C's argument order; a single row times a matrix by
// a kernel of our own, which reads the matrix at the memory's rate.
#include <oneapi/dnnl/dnnl.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/cpu/matrix_vector.h"
#include "core/cpu/ops.h"
#include "core/ops/matmul.h"

namespace vqlm::cpu {

template <>
void run(const Matmul& op) {
  const std::int64_t m = op.c.extent(0), n = op.c.extent(1), k = op.depth();
  if (m == 0 || n == 0) return;
  if (k == 0) {  // an empty sum; oneDNN leaves c unwritten
    if (op.accumulate == Accumulate::no) std::fill_n(op.c.f32(), m * n, 0.0f);
    return;
  }
  if (m == 1 && op.tb == Transpose::yes) return matrix_vector(op.c.f32(), op.b.f32(), op.a.f32(), n, k, op.accumulate);
  const float beta = op.accumulate == Accumulate::yes ? 1.0f : 0.0f;
  const dnnl_status_t status =
      dnnl_sgemm(op.ta == Transpose::yes ? 'T' : 'N', op.tb == Transpose::yes ? 'T' : 'N', m, n, k, 1.0f, op.a.f32(),
                 op.a.extent(1), op.b.f32(), op.b.extent(1), beta, op.c.f32(), n);
  if (status != dnnl_success) {
    throw Error(
        fmt::format("matmul: oneDNN's sgemm failed with status {} for M {}, N {}, K {}; status 1 is out of memory",
                    static_cast<int>(status), m, n, k));
  }
}

}  // namespace vqlm::cpu
