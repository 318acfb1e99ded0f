// Matrix products by oneDNN's sgemm, which takes row-major matrices with C's argument order; a single row times a matrix by
// a kernel of our own, which reads the matrix at the memory's rate.
#include <oneapi/dnnl/dnnl.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/cpu/matrix_vector.h"
#include "core/cpu/ops.h"

namespace vqlm::cpu {

void matmul(Tensor c, Tensor a, Tensor b, Transpose ta, Transpose tb, Accumulate accumulate) {
  VQLM_ASSERT(c.rank() == 2 && a.rank() == 2 && b.rank() == 2);
  const std::int64_t m = c.extent(0), n = c.extent(1);
  const std::int64_t k = ta == Transpose::yes ? a.extent(0) : a.extent(1);
  VQLM_ASSERT(a.shape() == (ta == Transpose::yes ? Shape({k, m}) : Shape({m, k})));
  VQLM_ASSERT(b.shape() == (tb == Transpose::yes ? Shape({n, k}) : Shape({k, n})));
  if (m == 0 || n == 0) return;
  if (k == 0) {  // an empty sum; oneDNN leaves c unwritten
    if (accumulate == Accumulate::no) std::fill_n(c.f32(), m * n, 0.0f);
    return;
  }
  if (m == 1 && tb == Transpose::yes) return matrix_vector(c.f32(), b.f32(), a.f32(), n, k, accumulate);
  const float beta = accumulate == Accumulate::yes ? 1.0f : 0.0f;
  const dnnl_status_t status =
      dnnl_sgemm(ta == Transpose::yes ? 'T' : 'N', tb == Transpose::yes ? 'T' : 'N', m, n, k, 1.0f, a.f32(),
                 a.extent(1), b.f32(), b.extent(1), beta, c.f32(), n);
  if (status != dnnl_success) {
    throw Error(fmt::format(
        "matmul: oneDNN's sgemm failed with status {} for M {}, N {}, K {}; status 1 is out of memory",
        static_cast<int>(status), m, n, k));
  }
}

}  // namespace vqlm::cpu
