// A VQ head's clusters scored by their code plus the mean of their members' vectors, and the gradient back. A block has a
// cluster and a stretch of columns, its threads walk down the members, 8 at a time whose loads are under way together:
// neighbouring threads read neighbouring columns, and every sum has one owner and one order.
//
// Bound by memory: forward reads 2 V d bytes, backward moves 8 V d. V 50,257, d 768: 77 and 309 MB, floors 18 and 72 us at
// 4.3 TB/s; V 128,000, d 4,096: 1.0 and 4.2 GB, 0.24 and 1.0 ms; not measured. A block walks down its whole cluster, so a
// map with one very large cluster takes as long as that one's members in a row.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/member_means.h"
#include "core/ops/member_part.h"

namespace vqlm::cuda {
namespace {

constexpr int threads = 128;
constexpr int in_flight = 8;  // members

/// sum += the in_flight rows of `width` columns at first, or, where there are not as many, `rows` of them; in order.
template <bool whole, int width>
__device__ __forceinline__ void add_batch(float (&sum)[width], const __nv_bfloat16* first, std::int64_t rows,
                                          std::int64_t columns) {
  using P = Pack<__nv_bfloat16, width>;
  P pack[in_flight];
#pragma unroll
  for (int r = 0; r < in_flight; ++r) {
    pack[r] = *reinterpret_cast<const P*>(first + (whole ? r : min(r, static_cast<int>(rows) - 1)) * columns);
  }
#pragma unroll
  for (int r = 0; r < in_flight; ++r) {
#pragma unroll
    for (int c = 0; c < width; ++c) {
      if (whole || r < rows) sum[c] += to_float(pack[r].at[c]);
    }
  }
}

/// sum += all `rows` rows.
template <int width>
__device__ __forceinline__ void add_rows(float (&sum)[width], const __nv_bfloat16* first, std::int64_t rows,
                                         std::int64_t columns) {
  for (; rows >= in_flight; rows -= in_flight, first += in_flight * columns) {
    add_batch<true>(sum, first, rows, columns);
  }
  if (rows > 0) add_batch<false>(sum, first, rows, columns);
}

/// The in_flight rows at first, or `rows` of them, += share x.
template <bool whole, int width>
__device__ __forceinline__ void add_to_batch(float* first, const float (&x)[width], float share, std::int64_t rows,
                                             std::int64_t columns) {
  float row[in_flight][width];
#pragma unroll
  for (int r = 0; r < in_flight; ++r) {
    load_pack(row[r], first + (whole ? r : min(r, static_cast<int>(rows) - 1)) * columns);
  }
#pragma unroll
  for (int r = 0; r < in_flight; ++r) {
    if (!whole && r >= rows) continue;
#pragma unroll
    for (int c = 0; c < width; ++c) row[r][c] += share * x[c];
    store_pack(first + r * columns, row[r]);
  }
}

template <int width>
__global__ void __launch_bounds__(threads)
    add_member_means_kernel(GridDependency dependency, __nv_bfloat16* out, const __nv_bfloat16* codebook,
                            const __nv_bfloat16* members, const std::int32_t* member_begin, std::int64_t columns) {
  dependency.wait();
  const std::int64_t k = blockIdx.x;
  const std::int64_t j = (static_cast<std::int64_t>(blockIdx.y) * threads + threadIdx.x) * width;
  if (j >= columns) return;
  const std::int64_t begin = member_begin[k], end = member_begin[k + 1];
  float sum[width] = {}, x[width];
  add_rows(sum, members + begin * columns + j, end - begin, columns);
  const float share = 1.0f / static_cast<float>(end - begin);
  load_pack(x, codebook + k * columns + j);
#pragma unroll
  for (int c = 0; c < width; ++c) x[c] += share * sum[c];
  store_pack(out + k * columns + j, x);
}

template <int width>
__global__ void __launch_bounds__(threads)
    member_means_part_kernel(GridDependency dependency, float* means, const __nv_bfloat16* vectors,
                             const std::int32_t* member_begin, const std::int32_t* cluster_sizes,
                             std::int64_t columns) {
  dependency.wait();
  const std::int64_t k = blockIdx.x;
  const std::int64_t j = (static_cast<std::int64_t>(blockIdx.y) * threads + threadIdx.x) * width;
  if (j >= columns) return;
  float sum[width] = {};
  const std::int64_t begin = member_begin[k];
  add_rows(sum, vectors + begin * columns + j, member_begin[k + 1] - begin, columns);
  const float share = 1.0f / static_cast<float>(cluster_sizes[k]);
#pragma unroll
  for (int c = 0; c < width; ++c) sum[c] *= share;
  store_pack(means + k * columns + j, sum);
}

template <int width>
__global__ void __launch_bounds__(threads)
    add_member_means_backward_kernel(GridDependency dependency, float* dcodebook, float* dmembers, const float* dout,
                                     const std::int32_t* member_begin, const std::int32_t* cluster_sizes,
                                     std::int64_t columns) {
  dependency.wait();
  const std::int64_t k = blockIdx.x;
  const std::int64_t j = (static_cast<std::int64_t>(blockIdx.y) * threads + threadIdx.x) * width;
  if (j >= columns) return;
  const std::int64_t begin = member_begin[k], end = member_begin[k + 1];
  float gradient[width], x[width];
  load_pack(gradient, dout + k * columns + j);
  if (dcodebook != nullptr) {
    load_pack(x, dcodebook + k * columns + j);
#pragma unroll
    for (int c = 0; c < width; ++c) x[c] += gradient[c];
    store_pack(dcodebook + k * columns + j, x);
  }
  const float share = 1.0f / static_cast<float>(cluster_sizes != nullptr ? cluster_sizes[k] : end - begin);
  float* first = dmembers + begin * columns + j;
  std::int64_t rows = end - begin;
  for (; rows >= in_flight; rows -= in_flight, first += in_flight * columns) {
    add_to_batch<true>(first, gradient, share, rows, columns);
  }
  if (rows > 0) add_to_batch<false>(first, gradient, share, rows, columns);
}

/// Blocks for (K, columns), in packs of `width`.
dim3 blocks(const Tensor& codes, int width) {
  return {static_cast<unsigned>(codes.extent(0)),
          static_cast<unsigned>(ceil_div<std::int64_t>(codes.extent(1), std::int64_t{threads} * width))};
}

}  // namespace

template <>
void run(const Context& context, const AddMemberMeans& op) {
  const std::int64_t columns = op.out.extent(1);
  const bool wide = rows_in_packs<8>(columns, bf16(op.out), bf16(op.codebook), bf16(op.members));
  launch(wide ? add_member_means_kernel<8> : add_member_means_kernel<1>,
         {blocks(op.out, wide ? 8 : 1), dim3(threads), 0, context.stream}, bf16(op.out), bf16(op.codebook),
         bf16(op.members), op.map.member_begin.i32(), columns);
}

template <>
void run(const Context& context, const AddMemberMeansBackward& op) {
  const std::int64_t columns = op.dout.extent(1);
  const bool wide = rows_in_packs<4>(columns, op.dcodebook.f32(), op.dmembers.f32(), op.dout.f32());
  launch(wide ? add_member_means_backward_kernel<4> : add_member_means_backward_kernel<1>,
         {blocks(op.dout, wide ? 4 : 1), dim3(threads), 0, context.stream}, op.dcodebook.f32(), op.dmembers.f32(),
         op.dout.f32(), op.map.member_begin.i32(), op.map.cluster_sizes.i32(), columns);
}

template <>
void run(const Context& context, const MemberMeansPart& op) {
  const std::int64_t columns = op.means.extent(1);
  const bool wide = rows_in_packs<8>(columns, op.means.f32(), bf16(op.vectors));
  launch(wide ? member_means_part_kernel<8> : member_means_part_kernel<1>,
         {blocks(op.means, wide ? 8 : 1), dim3(threads), 0, context.stream}, op.means.f32(), bf16(op.vectors),
         op.map.member_begin.i32(), op.map.cluster_sizes.i32(), columns);
}

}  // namespace vqlm::cuda
