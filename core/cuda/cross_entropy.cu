// Softmax cross entropy over sharded classes.
//
// softmax_statistics reads bf16 logits once (2 N C bytes; N 16,384, C 50,257: 1.6 GB, floor 0.38 ms at 4.3 TB/s), with a
// running maximum and sum in each thread. softmax_gradient reads and writes them once (4 N C bytes, floor 0.77 ms).
// log_softmax reads f32 twice, the second time from a cache where a row fits. A cap of the logits adds a tanhf for each
// (N C; about 20 instructions) to each pass. Not measured on a GPU.
//
// A row may begin anywhere; up to 7 elements in front of its first 16-byte boundary and behind its last are done one by
// one. The head pads its rows to multiples of 64, so that each begins at a boundary. Short rows (K codes of the VQ head)
// take a warp each, long ones a block. A head whose classes all lie here trains in one pass: softmax_cross_entropy.cu.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/softmax_rows.h"
#include "core/ops/cross_entropy.h"

namespace vqlm::cuda {
namespace {

/// x[i] += bias[column + i]. 16-byte loads also where the bias lies otherwise than the logits: single floats would make
/// eight times the traffic with the first-level cache, more than it can carry beside the logits.
__device__ __forceinline__ void add_bias(float (&x)[8], const float* bias, std::int64_t column, std::int64_t classes) {
  if (bias == nullptr) return;
  const float* const begin = bias + column;
  const int shift = static_cast<int>(reinterpret_cast<std::uintptr_t>(begin) / sizeof(float) % 4);
  const int needed = shift == 0 ? 8 : 12;
  if (column < shift || column - shift + needed > classes) {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] += begin[i];
    return;
  }
  float around[12];
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const float4 four = 4 * i < needed ? reinterpret_cast<const float4*>(begin - shift)[i] : make_float4(0, 0, 0, 0);
    around[4 * i] = four.x, around[4 * i + 1] = four.y, around[4 * i + 2] = four.z, around[4 * i + 3] = four.w;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float even = shift < 2 ? around[i] : around[i + 2], odd = shift < 2 ? around[i + 1] : around[i + 3];
    x[i] += shift % 2 == 0 ? even : odd;
  }
}

/// Calls visit.pack(column, x) and visit.one(column, x) for a thread's share of a row, x = logits + bias behind the cap.
template <int threads, class Visit>
__device__ __forceinline__ void visit_row(const __nv_bfloat16* row, const float* bias, float cap, std::int64_t classes,
                                          Visit&& visit) {
  const int index = RowThreads<threads>::index();
  const auto to_boundary =
      static_cast<std::int64_t>((16 - reinterpret_cast<std::uintptr_t>(row) % 16) % 16 / sizeof(__nv_bfloat16));
  const std::int64_t head = to_boundary < classes ? to_boundary : classes;
  const std::int64_t packs = (classes - head) / 8, tail = head + 8 * packs;
  for (std::int64_t i = index; i < packs; i += threads) {
    const std::int64_t column = head + 8 * i;
    float x[8];
    load8(x, row + column);
    add_bias(x, bias, column, classes);
    if (cap > 0) {
#pragma unroll
      for (int k = 0; k < 8; ++k) x[k] = capped(x[k], cap);
    }
    visit.pack(column, x);
  }
  const std::int64_t singles = head + classes - tail;
  for (std::int64_t i = index; i < singles; i += threads) {
    const std::int64_t column = i < head ? i : tail + i - head;
    visit.one(column, capped(to_float(row[column]) + (bias == nullptr ? 0.0f : bias[column]), cap));
  }
}

template <int threads>
__global__ void __launch_bounds__(block_threads)
    statistics_kernel(GridDependency dependency, float* statistics, const __nv_bfloat16* logits, const float* bias,
                      const std::int32_t* targets, std::int64_t rows, std::int64_t width, ClassShard classes,
                      float cap) {
  dependency.wait();
  const std::int64_t n = RowThreads<threads>::row();
  if (n >= rows) return;  // whole warps, or none where a row has a block
  const __nv_bfloat16* const row = logits + n * width;
  RunningSum running;
  visit_row<threads>(row, bias, cap, classes.count, running);
  running.combine<threads>();
  if (RowThreads<threads>::index() != 0) return;
  const std::int64_t column = column_of(targets[n], classes);
  statistics[3 * n] = running.maximum;
  statistics[3 * n + 1] = running.sum;
  statistics[3 * n + 2] =
      column < 0 ? 0.0f : capped(to_float(row[column]) + (bias == nullptr ? 0.0f : bias[column]), cap);
}

__global__ void __launch_bounds__(block_threads)
    combine_kernel(GridDependency dependency, float* nll, float* lse, float* penalty, const float* statistics,
                   const std::int32_t* targets, std::int64_t shards, std::int64_t rows, float z_loss) {
  dependency.wait();
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (n >= rows) return;
  float maximum = statistics[3 * n];
  for (std::int64_t p = 1; p < shards; ++p) {
    const float other = statistics[3 * (p * rows + n)];
    if (!(other <= maximum)) maximum = other;  // NaN stays visible
  }
  float sum = 0, logit = 0;
  for (std::int64_t p = 0; p < shards; ++p) {
    const float* const part = statistics + 3 * (p * rows + n);
    sum += part[1] * expf(part[0] - maximum);
    logit += part[2];
  }
  const float log_sum = logf(sum);
  lse[n] = maximum + log_sum;
  // maximum - logit first: both may be large, and their difference is exact where they are close.
  nll[n] = targets[n] < 0 ? 0.0f : (maximum - logit) + log_sum;
  if (penalty != nullptr) penalty[n] = targets[n] < 0 ? 0.0f : z_loss * lse[n] * lse[n];
}

/// Overwrites logits with their gradient.
struct WriteGradient {
  __nv_bfloat16* row;
  RowGradient gradient;

  __device__ __forceinline__ void one(std::int64_t column, float x) const {
    row[column] = from_float<__nv_bfloat16>(gradient(column, x));
  }
  __device__ __forceinline__ void pack(std::int64_t column, float (&x)[8]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = gradient(column + i, x[i]);
    store8(row + column, x);
  }
};

template <int threads>
__global__ void __launch_bounds__(block_threads)
    gradient_kernel(GridDependency dependency, __nv_bfloat16* logits, const float* bias, const float* lse,
                    const std::int32_t* targets, std::int64_t rows, std::int64_t width, ClassShard classes, float scale,
                    float z_loss, float cap) {
  dependency.wait();
  const std::int64_t n = RowThreads<threads>::row();
  if (n >= rows) return;
  __nv_bfloat16* const row = logits + n * width;
  const std::int32_t target = targets[n];
  const WriteGradient write{row,
                            {column_of(target, classes), lse[n], scale, 1 + 2 * z_loss * lse[n], target >= 0, cap}};
  visit_row<threads>(row, bias, cap, classes.count, write);
  for (std::int64_t c = classes.count + RowThreads<threads>::index(); c < width; c += threads) {
    row[c] = from_float<__nv_bfloat16>(0.0f);
  }
}

template <int threads>
__global__ void __launch_bounds__(block_threads)
    log_softmax_kernel(GridDependency dependency, float* logits, const float* bias, std::int64_t rows,
                       std::int64_t classes, float cap) {
  dependency.wait();
  const std::int64_t n = RowThreads<threads>::row();
  if (n >= rows) return;
  float* const row = logits + n * classes;
  const auto x = [&](std::int64_t column) {
    return capped(row[column] + (bias == nullptr ? 0.0f : bias[column]), cap);
  };
  RunningSum running;
  for (std::int64_t c = RowThreads<threads>::index(); c < classes; c += threads) running.one(c, x(c));
  running.combine<threads>();
  const float lse = running.maximum + logf(running.sum);
  for (std::int64_t c = RowThreads<threads>::index(); c < classes; c += threads) row[c] = x(c) - lse;
}

/// Calls run(std::integral_constant<int, threads of a row>, blocks).
template <class Run>
void with_row_threads(std::int64_t rows, std::int64_t classes, const Run& run) {
  const auto blocks = [rows](std::int64_t per_block) { return static_cast<unsigned>(ceil_div(rows, per_block)); };
  if (classes <= warp_row_classes) {
    run(std::integral_constant<int, warp_size>{}, blocks(RowThreads<warp_size>::rows_per_block));
  } else {
    run(std::integral_constant<int, block_threads>{}, blocks(RowThreads<block_threads>::rows_per_block));
  }
}

}  // namespace

template <>
void run(const Context& context, const SoftmaxStatistics& op) {
  const ClassShard& classes = op.classes;
  const std::int64_t rows = op.logits.extent(0);
  if (rows == 0) return;
  with_row_threads(rows, classes.count, [&](auto threads, unsigned blocks) {
    launch(statistics_kernel<decltype(threads)::value>, {blocks, block_threads, 0, context.stream}, op.statistics.f32(),
           bf16(op.logits), op.bias.f32(), op.targets.i32(), rows, op.logits.extent(1), classes, op.softcap);
  });
}

template <>
void run(const Context& context, const SoftmaxCombine& op) {
  const std::int64_t shards = op.statistics.extent(0), rows = op.statistics.extent(1);
  if (rows == 0) return;
  launch(combine_kernel,
         {static_cast<unsigned>(ceil_div(rows, std::int64_t{block_threads})), block_threads, 0, context.stream},
         op.nll.f32(), op.lse.f32(), op.penalty.f32(), op.statistics.f32(), op.targets.i32(), shards, rows, op.z_loss);
}

template <>
void run(const Context& context, const SoftmaxGradient& op) {
  const ClassShard& classes = op.classes;
  const std::int64_t rows = op.logits.extent(0), width = op.logits.extent(1);
  if (rows == 0 || width == 0) return;
  with_row_threads(rows, classes.count, [&](auto threads, unsigned blocks) {
    launch(gradient_kernel<decltype(threads)::value>, {blocks, block_threads, 0, context.stream}, bf16(op.logits),
           op.bias.f32(), op.lse.f32(), op.targets.i32(), rows, width, classes, op.scale, op.z_loss, op.softcap);
  });
}

template <>
void run(const Context& context, const LogSoftmax& op) {
  const std::int64_t rows = op.logits.extent(0), classes = op.logits.extent(1);
  if (rows == 0 || classes == 0) return;
  with_row_threads(rows, classes, [&](auto threads, unsigned blocks) {
    launch(log_softmax_kernel<decltype(threads)::value>, {blocks, block_threads, 0, context.stream}, op.logits.f32(),
           op.bias.f32(), rows, classes, op.softcap);
  });
}

}  // namespace vqlm::cuda
