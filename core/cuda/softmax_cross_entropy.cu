// Softmax cross entropy and its gradient in one pass over bf16 logits, for rows whose classes all lie here.
//
// A row is read once and written once, 4 N C bytes: N 16,384, C 50,304: 3.3 GB, 0.77 ms at 4.3 TB/s. About 30 instructions an
// element with a bias (machine code of nvcc 13.0). Not measured on a GPU.
//
// The bias gradient is summed beside the gradient where a float a column finds room next to the bias in shared memory, up to
// 28,928 columns on sm_90 (20,736 on sm_80: 8 bytes a column): a thread owns the same columns of every row, so that its sums
// need no barriers, reads the next row while it works on one, and the blocks' sums, 4 C bytes each, are added in order: N 16,384, C 28,672 on 132 multiprocessors: 30 MB
// moved in place of 0.94 GB read. Wider rows' sums are a pass of their own, 2 N C bytes more; the separate passes of
// cross_entropy.cu take 8 N C with it. The product's epilogue, which would make room by adding the bias there, is no way out:
// cuBLASLt takes for a bf16 product a bf16 bias, and token biases of about -11 would be off by up to 0.03.
//
// A block takes a row at a time and strides over the rows. Up to 57,344 columns lie in registers as they were, all asked for
// before the first arithmetic, and the bias, which every row needs twice, in shared memory: read from the second-level cache it
// would be twice the traffic of the logits. Without room for that, and up to 115,712 columns on sm_90 (82,944 on sm_80), the row
// lies in shared memory. Wider rows, rows that do not begin at 16-byte boundaries, short ones and logits with a cap take the
// separate passes.
#include "core/cuda/launch.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/cuda/partial_sums.h"
#include "core/cuda/softmax_rows.h"
#include "core/ops/elementwise.h"

namespace vqlm::cuda {
namespace {

struct CrossEntropyProblem {
  __nv_bfloat16* logits;
  float *nll, *lse, *penalty;
  float* partials;  // (blocks, width), where a block's sums of the gradient's columns go
  const float* bias;
  const std::int32_t* targets;
  std::int64_t rows;
  int width;  // a multiple of 8
  ClassShard classes;
  float scale, z_loss;
};

/// beside_sums: in shared memory, with the sums of the gradient's columns behind it.
enum class BiasPlace { none, shared, global, beside_sums };
template <BiasPlace place>
constexpr bool in_shared = place == BiasPlace::shared || place == BiasPlace::beside_sums;

/// The bias of 8 neighbouring classes. In shared memory it lies in two halves, so that the 16-byte accesses of neighbouring
/// threads are neighbours.
template <BiasPlace place>
struct BiasRow {
  const float* data;
  int classes, half;

  /// By the whole block; `shared` has room for `width` floats.
  __device__ __forceinline__ BiasRow(const CrossEntropyProblem& p, float* shared)
      : data(in_shared<place> ? shared : p.bias), classes(static_cast<int>(p.classes.count)), half(p.width / 2) {
    if constexpr (in_shared<place>) {
      for (int c = static_cast<int>(threadIdx.x); c < p.width; c += static_cast<int>(blockDim.x)) {
        shared[c % 8 / 4 * half + c / 8 * 4 + c % 4] = c < classes ? p.bias[c] : 0.0f;
      }
      __syncthreads();
    }
  }
  __device__ __forceinline__ void add(float (&x)[8], int pack) const {
    if constexpr (place == BiasPlace::none) return;
    if (place == BiasPlace::global && 8 * pack + 8 > classes) {
#pragma unroll
      for (int k = 0; k < 8; ++k) x[k] += 8 * pack + k < classes ? data[8 * pack + k] : 0.0f;
      return;
    }
    const auto* const fours = reinterpret_cast<const float4*>(data);
    const float4 a = fours[in_shared<place> ? pack : 2 * pack];
    const float4 b = fours[in_shared<place> ? half / 4 + pack : 2 * pack + 1];
    x[0] += a.x, x[1] += a.y, x[2] += a.z, x[3] += a.w;
    x[4] += b.x, x[5] += b.y, x[6] += b.z, x[7] += b.w;
  }
};

/// Sums of a block's gradients, column by column, in shared memory: in two halves, as the bias. A thread adds to its own.
struct ColumnSums {
  float4 *low, *high;

  __device__ __forceinline__ ColumnSums(float* shared, int width)
      : low(reinterpret_cast<float4*>(shared)), high(low + width / 8) {}
  __device__ __forceinline__ void clear(int pack) const {
    low[pack] = make_float4(0, 0, 0, 0);
    high[pack] = make_float4(0, 0, 0, 0);
  }
  __device__ __forceinline__ void add(int pack, const uint4& rounded) const {
    float x[8];
    unpack8(x, rounded);
    const float4 a = low[pack], b = high[pack];
    low[pack] = make_float4(a.x + x[0], a.y + x[1], a.z + x[2], a.w + x[3]);
    high[pack] = make_float4(b.x + x[4], b.y + x[5], b.z + x[6], b.w + x[7]);
  }
  __device__ __forceinline__ void store(int pack, float* out) const {
    reinterpret_cast<float4*>(out)[2 * pack] = low[pack];
    reinterpret_cast<float4*>(out)[2 * pack + 1] = high[pack];
  }
};

/// A row in the registers of a block: `packs` packs a thread, those of neighbouring threads neighbours.
template <int block_size, int packs>
struct RegisterRow {
  static constexpr int threads = block_size, columns = 8 * block_size * packs;
  uint4 raw[packs];

  __device__ __forceinline__ explicit RegisterRow(float*) {}
  __device__ __forceinline__ static int number(int p) { return p * threads + static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ void load(const __nv_bfloat16* row, int count) {
#pragma unroll
    for (int p = 0; p < packs; ++p) raw[p] = number(p) < count ? load8(row + 8 * number(p)) : uint4{};
    __syncwarp();  // keeps nvcc from delaying loads behind arithmetic
  }
  template <class Use>
  __device__ __forceinline__ void for_each(int count, const Use& use) const {
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      if (number(p) < count) use(number(p), raw[p]);
    }
  }
};

/// A row in shared memory. A thread reads only what it has put there, so that no barriers are needed.
struct SharedRow {
  static constexpr int threads = 512;
  uint4* raw;

  __device__ __forceinline__ explicit SharedRow(float* shared) : raw(reinterpret_cast<uint4*>(shared)) {}
  __device__ __forceinline__ void load(const __nv_bfloat16* row, int count) const {
#pragma unroll 8
    for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) raw[i] = load8(row + 8 * i);
  }
  template <class Use>
  __device__ __forceinline__ void for_each(int count, const Use& use) const {
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) use(i, raw[i]);
  }
};

/// Threads of a multiprocessor: 64 registers each.
constexpr int resident_threads = 1024;

template <class Row, BiasPlace place>
__global__ void __launch_bounds__(Row::threads, resident_threads / Row::threads)
    cross_entropy_kernel(GridDependency dependency, CrossEntropyProblem p) {
  dependency.wait();
  auto* const shared = dynamic_shared<float>();
  const BiasRow<place> bias(p, shared);
  Row row(shared + (in_shared<place> ? p.width : 0));
  const int packs = p.width / 8, classes = static_cast<int>(p.classes.count);
  constexpr bool with_sums = place == BiasPlace::beside_sums;
  const ColumnSums sums(shared + p.width, p.width);
  if constexpr (with_sums) row.for_each(packs, [&](int pack, const uint4&) { sums.clear(pack); });
  // x of a pack, and -infinity behind the classes.
  const auto values = [&](float(&x)[8], const uint4& raw, int pack) {
    unpack8(x, raw);
    bias.add(x, pack);
    if (8 * pack + 8 > classes) {
#pragma unroll
      for (int k = 0; k < 8; ++k) x[k] = 8 * pack + k < classes ? x[k] : -INFINITY;
    }
  };
  for (std::int64_t n = blockIdx.x; n < p.rows; n += gridDim.x) {
    __nv_bfloat16* const logits = p.logits + n * p.width;
    const std::int32_t target = p.targets[n];
    const std::int64_t column = column_of(target, p.classes);
    if (!with_sums || n == blockIdx.x) row.load(logits, packs);
    // Before the barriers of the sum: behind them the gradient is written.
    float of_target = 0;
    if (threadIdx.x == 0 && column >= 0) {
      of_target = to_float(logits[column]) + (p.bias == nullptr ? 0.0f : p.bias[column]);
    }
    RunningSum running;
    row.for_each(packs, [&](int pack, const uint4& raw) {
      float x[8];
      values(x, raw, pack);
      running.pack(8 * pack, x);
    });
    Row next(nullptr);  // with one block on a multiprocessor nobody else computes while a row is on its way
    if (with_sums && n + gridDim.x < p.rows) next.load(logits + static_cast<std::int64_t>(gridDim.x) * p.width, packs);
    const float maximum = block_max(running.maximum);
    const float log_sum = logf(block_sum(running.sum * exp_approx(running.maximum - maximum)));
    const float lse = maximum + log_sum;
    if (threadIdx.x == 0) {
      p.lse[n] = lse;
      // maximum - x first: both may be large, and their difference is exact where they are close.
      p.nll[n] = target < 0 ? 0.0f : (maximum - of_target) + log_sum;
      if (p.penalty != nullptr) p.penalty[n] = target < 0 ? 0.0f : p.z_loss * lse * lse;
    }
    const float factor = p.scale * (1 + 2 * p.z_loss * lse);
    row.for_each(packs, [&](int pack, const uint4& raw) {
      float x[8] = {};
      if (target >= 0) {
        values(x, raw, pack);
#pragma unroll
        for (int k = 0; k < 8; ++k) x[k] = factor * exp_approx(x[k] - lse);
        if (column / 8 == pack) {
#pragma unroll
          for (int k = 0; k < 8; ++k) x[k] -= column == 8 * pack + k ? p.scale : 0.0f;
        }
      }
      const uint4 rounded =
          make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
      store_16(logits + 8 * pack, rounded);
      if constexpr (with_sums) sums.add(pack, rounded);
    });
    if constexpr (with_sums) row = next;
  }
  if constexpr (with_sums) {
    float* const out = p.partials + static_cast<std::int64_t>(blockIdx.x) * p.width;
    row.for_each(packs, [&](int pack, const uint4&) { sums.store(pack, out); });
  }
}

/// Blocks that run at once with `shared` bytes of shared memory, but no more than rows.
template <class Row>
unsigned blocks_for(const Context& context, const CrossEntropyProblem& p, std::size_t shared) {
  const std::int64_t at_once = std::int64_t{std::max(context.multiprocessors, 1)} *
                               std::clamp<std::int64_t>(static_cast<std::int64_t>(context.shared_memory_per_block /
                                                                                  std::max<std::size_t>(shared, 1)),
                                                        1, resident_threads / Row::threads);
  return static_cast<unsigned>(std::min(p.rows, at_once));
}

template <class Row, BiasPlace place>
void start(const Context& context, const CrossEntropyProblem& p, std::size_t shared) {
  launch(cross_entropy_kernel<Row, place>, {blocks_for<Row>(context, p, shared), Row::threads, shared, context.stream},
         p);
}

/// The same with sums of columns, which dbias accumulates.
template <class Row>
void start_with_sums(const Context& context, CrossEntropyProblem p, float* dbias) {
  const std::size_t row_bytes = static_cast<std::size_t>(p.width) * sizeof(float), shared = 2 * row_bytes;
  const unsigned blocks = blocks_for<Row>(context, p, shared);
  p.partials = static_cast<float*>(context.workspace->get(blocks * row_bytes));
  start<Row, BiasPlace::beside_sums>(context, p, shared);
  add_partial_sums(context, dbias, p.partials, blocks, p.width, p.classes.count);
}

/// False where bias and sums do not fit beside each other.
bool run_with_sums(const Context& context, const CrossEntropyProblem& p, float* dbias) {
  // 32 warps of one block on a multiprocessor: their registers, and for wide rows its shared memory, leave no room for a second.
  using Narrow = RegisterRow<1024, 2>;
  using Wide = RegisterRow<1024, 4>;
  const std::size_t shared = 2 * static_cast<std::size_t>(p.width) * sizeof(float);
  if (p.bias == nullptr || shared > context.shared_memory_per_block - 1024 || p.width > Wide::columns) return false;
  if (p.width <= Narrow::columns) return start_with_sums<Narrow>(context, p, dbias), true;
  return start_with_sums<Wide>(context, p, dbias), true;
}

template <class Row>
void start_in_registers(const Context& context, const CrossEntropyProblem& p) {
  if (p.bias == nullptr) return start<Row, BiasPlace::none>(context, p, 0);
  start<Row, BiasPlace::shared>(context, p, static_cast<std::size_t>(p.width) * sizeof(float));
}

/// False where the row fits nowhere.
bool run_in_one_pass(const Context& context, const CrossEntropyProblem& p) {
  using Narrow = RegisterRow<512, 4>;
  using Medium = RegisterRow<512, 7>;
  using Wide = RegisterRow<1024, 4>;
  using Widest = RegisterRow<1024, 7>;
  const auto width = static_cast<std::size_t>(p.width), room = context.shared_memory_per_block;
  const bool bias_fits = p.bias == nullptr || width * sizeof(float) <= room - 1024;  // static shared memory beside it
  if (bias_fits && p.width <= Widest::columns) {
    if (p.width <= Narrow::columns) return start_in_registers<Narrow>(context, p), true;
    if (p.width <= Medium::columns) return start_in_registers<Medium>(context, p), true;
    if (p.width <= Wide::columns) return start_in_registers<Wide>(context, p), true;
    return start_in_registers<Widest>(context, p), true;
  }
  const std::size_t row = width * sizeof(__nv_bfloat16);
  if (row > room - 1024) return false;
  if (p.bias == nullptr) return start<SharedRow, BiasPlace::none>(context, p, row), true;
  return start<SharedRow, BiasPlace::global>(context, p, row), true;
}

}  // namespace

template <>
void run(const Context& context, const SoftmaxCrossEntropy& op) {
  const std::int64_t rows = op.logits.extent(0), width = op.logits.extent(1);
  if (rows == 0 || width == 0) return;
  constexpr std::int64_t widest = 1 << 20;  // columns are int in the kernel
  const CrossEntropyProblem problem{.logits = bf16(op.logits),
                                    .nll = op.nll.f32(),
                                    .lse = op.lse.f32(),
                                    .penalty = op.penalty.f32(),
                                    .partials = nullptr,
                                    .bias = op.bias.f32(),
                                    .targets = op.targets.i32(),
                                    .rows = rows,
                                    .width = static_cast<int>(std::min(width, widest)),
                                    .classes = op.classes,
                                    .scale = op.scale,
                                    .z_loss = op.z_loss};
  const bool in_packs = rows_in_packs<8>(width, bf16(op.logits)) && rows_in_packs<4>(4, op.bias.f32());
  const bool one_pass = op.classes.count > warp_row_classes && op.softcap <= 0 && width <= widest && in_packs;
  if (one_pass && op.dbias && run_with_sums(context, problem, op.dbias.f32())) return;
  if (!one_pass || !run_in_one_pass(context, problem)) {
    run(context, op.statistics_step());
    run(context, op.combine_step());
    run(context, op.gradient_step());
  }
  if (op.dbias) run(context, AddColumnSums{.out = op.dbias, .x = op.logits});
}

}  // namespace vqlm::cuda
