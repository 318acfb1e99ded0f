// parts x columns floats are read once, mostly from L2, where the first stage has just put them: 528 x 768 floats
// (RMSNorm's gain gradient, 132 multiprocessors) are 1.6 MB, 0.4 us at 4.3 TB/s; not measured.
#include "core/cuda/partial_sums.h"

#include "core/cuda/cuda_check.h"
#include "core/cuda/device_utils.h"
#include "core/cuda/launch.h"

namespace vqlm::cuda {
namespace {

constexpr int lanes_of_parts = 32;

/// A block adds 32 columns: warp w sums parts w, w + 32, ..., then the first warp adds the warps in order.
__global__ void partial_sums_kernel(GridDependency dependency, float* out, const float* partials, std::int64_t parts,
                                    std::int64_t stride, std::int64_t columns) {
  __shared__ float of_warp[lanes_of_parts][warp_size];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * warp_size + threadIdx.x;
  dependency.wait();
  float sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (std::int64_t part = threadIdx.y; part < parts; part += lanes_of_parts) {
      sum += partials[part * stride + column];
    }
  }
  of_warp[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= columns) return;
  for (int w = 1; w < lanes_of_parts; ++w) sum += of_warp[w][threadIdx.x];
  out[column] += sum;
}

}  // namespace

void add_partial_sums(const Context& context, float* out, const float* partials, std::int64_t parts,
                      std::int64_t stride, std::int64_t columns) {
  if (parts == 0 || columns == 0) return;
  launch(partial_sums_kernel,
         {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(columns, warp_size))), dim3(warp_size, lanes_of_parts), 0,
          context.stream},
         out, partials, parts, stride, columns);
}

bool kernels_wait() {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(partial_sums_kernel)),
             "cudaFuncGetAttributes");
  return attributes.ptxVersion >= 90;
}

}  // namespace vqlm::cuda
