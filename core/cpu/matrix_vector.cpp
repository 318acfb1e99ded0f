// y (n) = [y +] W (n, k) x (k): the product of one-token decoding, of every linear layer and of the dense head.
//
// n k multiply-adds on n k floats that are read once: the floor is the machine's rate of reading. Row by row, since four
// rows at a time are four places in memory and were 20 % slower. (50,257, 768), 154 MB, one AVX-512 thread (Zen 4) on a busy
// memory bus: 22 GB/s where copies run at 29; oneDNN 2.6's sgemm with one row reads 12 GB/s.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/cpu/matrix_vector.cpp"
#include "hwy/foreach_target.h"  // compiles this file once per instruction set

#include "core/cpu/lanes-inl.h"
#include "core/cpu/matrix_vector.h"
#include "core/cpu/parallel.h"

HWY_BEFORE_NAMESPACE();
namespace vqlm::cpu::HWY_NAMESPACE {

void products_of_rows(float* y, const float* w, const float* x, std::int64_t n, std::int64_t k, bool adds) {
  for (std::int64_t r = 0; r < n; ++r, w += k) {
    const float sum = sum_lanes(k, [&](auto d, std::int64_t i, auto total) HWY_ATTR {
      return hn::MulAdd(hn::LoadU(d, w + i), hn::LoadU(d, x + i), total);
    });
    y[r] = adds ? y[r] + sum : sum;
  }
}

}  // namespace vqlm::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vqlm::cpu {

HWY_EXPORT(products_of_rows);

void matrix_vector(float* y, const float* w, const float* x, std::int64_t n, std::int64_t k, Accumulate accumulate) {
  parallel_blocks(n, rows_per_block(k), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(products_of_rows)
    (y + begin, w + begin * k, x, end - begin, k, accumulate == Accumulate::yes);
  });
}

}  // namespace vqlm::cpu
#endif  // HWY_ONCE
