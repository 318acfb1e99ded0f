// A block takes a row at a time, an element a thread, and reads it twice, the second time from a cache: hardly a model
// has such rows; what a row costs in wide accesses stands in rmsnorm.cu.
//
// Each column is one thread's in all rows, so that its gain gradient adds up in shared memory without barriers.
#include "core/cuda/rmsnorm_by_element.h"

#include <algorithm>
#include <string>

#include "core/cuda/launch.h"
#include "core/cuda/packs.h"
#include "core/cuda/partial_sums.h"

namespace vqlm::cuda {
namespace {

constexpr int by_element_threads = 256;
constexpr std::int64_t max_columns_by_element = 16384;  // 64 KiB of shared memory

void check_columns(std::int64_t columns) {
  if (columns <= max_columns_by_element) return;
  throw Error("rmsnorm on a GPU takes rows of at most " + std::to_string(max_columns_by_element) +
              " elements; d_model is " + std::to_string(columns));
}

__global__ void __launch_bounds__(by_element_threads)
    rmsnorm_forward_by_element_kernel(GridDependency dependency, __nv_bfloat16* y, float* rstd, __nv_bfloat16* sum,
                                      const __nv_bfloat16* x, const __nv_bfloat16* branch, const float* gain,
                                      std::int64_t columns, float eps) {
  dependency.wait();
  const std::int64_t row = blockIdx.x, begin = row * columns;
  const __nv_bfloat16* const normalised = branch == nullptr ? x : sum;
  float squares = 0;
  for (std::int64_t c = threadIdx.x; c < columns; c += by_element_threads) {
    float value = to_float(x[begin + c]);
    if (branch != nullptr) {
      const auto rounded = from_float<__nv_bfloat16>(value + to_float(branch[begin + c]));
      sum[begin + c] = rounded;
      value = to_float(rounded);
    }
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(columns) + eps);
  if (threadIdx.x == 0) rstd[row] = scale;
  for (std::int64_t c = threadIdx.x; c < columns; c += by_element_threads) {
    y[begin + c] = from_float<__nv_bfloat16>(to_float(normalised[begin + c]) * scale * gain[c]);
  }
}

/// partial_dgain (blocks, columns): the sum over rows blockIdx.x, blockIdx.x + gridDim.x, ...
__global__ void __launch_bounds__(by_element_threads)
    rmsnorm_backward_by_element_kernel(GridDependency dependency, __nv_bfloat16* dx, float* partial_dgain,
                                       const __nv_bfloat16* dy, const __nv_bfloat16* x, const float* gain,
                                       const float* rstd, std::int64_t rows, std::int64_t columns, bool accumulate) {
  dependency.wait();
  auto* const dgain = dynamic_shared<float>();
  for (std::int64_t c = threadIdx.x; c < columns; c += by_element_threads) dgain[c] = 0;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const std::int64_t begin = row * columns;
    const float scale = rstd[row];
    float dot = 0;
    for (std::int64_t c = threadIdx.x; c < columns; c += by_element_threads) {
      const float product = to_float(dy[begin + c]) * (to_float(x[begin + c]) * scale);
      dgain[c] += product;
      dot += product * gain[c];
    }
    const float mean = block_sum(dot) / static_cast<float>(columns);
    for (std::int64_t c = threadIdx.x; c < columns; c += by_element_threads) {
      const float g = to_float(dy[begin + c]) * gain[c], xhat = to_float(x[begin + c]) * scale;
      const float before = accumulate ? to_float(dx[begin + c]) : 0.0f;
      dx[begin + c] = from_float<__nv_bfloat16>(before + scale * (g - xhat * mean));
    }
  }
  for (std::int64_t c = threadIdx.x; c < columns; c += by_element_threads) {
    partial_dgain[blockIdx.x * columns + c] = dgain[c];
  }
}

}  // namespace

void rmsnorm_forward_by_element(const Context& context, const RmsnormForward& op) {
  const std::int64_t rows = op.x.extent(0), columns = op.x.extent(1);
  check_columns(columns);
  launch(rmsnorm_forward_by_element_kernel, {dim3(static_cast<unsigned>(rows)), by_element_threads, 0, context.stream},
         bf16(op.y), op.rstd.f32(), bf16(op.sum), bf16(op.x), bf16(op.branch), op.gain.f32(), columns, op.eps);
}

void rmsnorm_backward_by_element(const Context& context, const RmsnormBackward& op) {
  const std::int64_t rows = op.x.extent(0), columns = op.x.extent(1);
  check_columns(columns);
  const std::int64_t blocks = std::min<std::int64_t>(rows, 2 * std::max(context.multiprocessors, 1));
  auto* const partials =
      static_cast<float*>(context.workspace->get(static_cast<std::size_t>(blocks * columns) * sizeof(float)));
  launch(rmsnorm_backward_by_element_kernel,
         {dim3(static_cast<unsigned>(blocks)), by_element_threads, static_cast<std::size_t>(columns) * sizeof(float),
          context.stream},
         bf16(op.dx), partials, bf16(op.dy), bf16(op.x), op.gain.f32(), op.rstd.f32(), rows, columns,
         op.accumulate_dx == Accumulate::yes);
  add_partial_sums(context, op.dgain.f32(), partials, blocks, columns, columns);
}

}  // namespace vqlm::cuda
