// Rotary position embedding (arXiv 2104.09864), half-split pairs as Hugging Face stores them:
//   (x_i, x_{i+D/2}) -> (x_i cos - x_{i+D/2} sin, x_{i+D/2} cos + x_i sin), angle = position * frequency_i.
// The backward pass is the rotation by -angle.
//
// Bound by memory: 4 bytes for each element of the query and key heads (read and written in place), 3 operations. N = 16,384,
// 12 + 12 heads of 64: 101 MB, floor 23 us at 4.3 TB/s; not measured.
//
// A block takes a few rows of qkv. Its threads first put the rows' cosines and sines into shared memory, one angle each or a
// few, then turn packs of pairs of all heads. The angle is made in double up to its remainder in turns, in [-1/2, 1/2]: float
// angles would be wrong by p * 2^-24 radians, 0.004 at position p = 65,536; the rest is float's error of sincosf below pi.
#include <cmath>

#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/rope.h"

namespace vqlm::cuda {
namespace {

constexpr int threads = 256;

/// `half` = D / 2 pairs a head; angle i of position p is p * frequencies[i] * turns full turns, `turns` = direction / (2 pi).
template <int width>
__global__ void __launch_bounds__(threads)
    rope_kernel(GridDependency dependency, __nv_bfloat16* qkv, std::int64_t rows, std::int64_t seq_len,
                std::int64_t row_stride, int heads, int half, int rows_per_block, const double* frequencies,
                std::int64_t first, double turns) {
  dependency.wait();
  float* const cosine = dynamic_shared<float>();  // (rows_per_block, half)
  float* const sine = cosine + rows_per_block * half;
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * rows_per_block;
  for (int i = static_cast<int>(threadIdx.x); i < rows_per_block * half; i += threads) {
    const auto position = static_cast<double>(first + (first_row + i / half) % seq_len);
    const double angle = position * (turns * frequencies[i % half]);
    const auto remainder = static_cast<float>(angle - rint(angle));
    sincosf(6.28318530717958648f * remainder, &sine[i], &cosine[i]);
  }
  __syncthreads();
  const int packs = half / width;
  for (int i = static_cast<int>(threadIdx.x); i < rows_per_block * heads * packs; i += threads) {
    const int pair = i % packs * width, head = i / packs % heads, row_in_block = i / packs / heads;
    if (first_row + row_in_block >= rows) break;
    __nv_bfloat16* const low =
        qkv + (first_row + row_in_block) * row_stride + static_cast<std::int64_t>(head) * 2 * half + pair;
    float a[width], b[width], c[width], s[width];
    load_pack(a, low);
    load_pack(b, low + half);
    load_pack(c, cosine + row_in_block * half + pair);
    load_pack(s, sine + row_in_block * half + pair);
#pragma unroll
    for (int k = 0; k < width; ++k) {
      const float turned = a[k] * c[k] - b[k] * s[k];
      b[k] = b[k] * c[k] + a[k] * s[k];
      a[k] = turned;
    }
    store_pack(low, a);
    store_pack(low + half, b);
  }
}

void rotate(const Context& context, Tensor qkv, const AttentionShape& shape, const RopePositions& positions,
            double direction) {
  const std::int64_t rows = shape.batch * shape.seq_len;
  if (qkv.numel() == 0) return;
  const int half = shape.head_dim / 2;
  const int rows_per_block = std::max(threads / half, 1);
  const double turns = direction / (2 * 3.14159265358979323846);
  const bool wide = half % 8 == 0 && rows_in_packs<8>(shape.row(), bf16(qkv));
  launch(wide ? rope_kernel<8> : rope_kernel<1>,
         {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(rows, rows_per_block))), threads,
          static_cast<std::size_t>(2 * rows_per_block * half) * sizeof(float), context.stream},
         bf16(qkv), rows, shape.seq_len, shape.row(), shape.heads + shape.kv_heads, half, rows_per_block,
         positions.frequencies.as<double>(), positions.first, turns);
}

}  // namespace

template <>
void run(const Context& context, const RopeForward& op) {
  rotate(context, op.qkv, op.shape, op.positions, 1.0);
}

template <>
void run(const Context& context, const RopeBackward& op) {
  rotate(context, op.dqkv, op.shape, op.positions, -1.0);
}

}  // namespace vqlm::cuda
