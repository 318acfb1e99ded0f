// Log-probabilities of every token from the VQ head. A row's dot products with all Q sub-codes of a group make a table of
// Q numbers; a member's score is then G look-ups, as in product quantisation search (Jegou et al., PAMI 2011).
//
// A block takes up to 4 rows at a time. Their tables stand in shared memory with the rows side by side, so that one
// look-up of 16 bytes serves all four; random places in 32 banks cost about 2.5 times the bandwidth. Scores are made in
// member order in the block's workspace, where clusters are consecutive, and leave in token order, where rows of the
// result are: scattered 4-byte writes of the result would cost 8 times the memory traffic.
//
// Operations N Q d multiply-adds, N V G look-ups. Bytes: 12 N V (scores written and read, result written) and 32 N V from
// the second-level cache for the change of order. N 16,384, V 128,000, G 32, d 4,096: 67 G look-ups, by their bank
// conflicts about 25 ms on an H200 (estimate); a dense head takes 17 TFLOP, 22 ms at 790 TFLOP/s. Not measured.
#include <cfloat>
#include <type_traits>

#include "core/cuda/launch.h"
#include "core/cuda/member_rows.h"
#include "core/cuda/ops.h"
#include "core/cuda/packs.h"
#include "core/ops/member_log_probs.h"

namespace vqlm::cuda {
namespace {

constexpr int block_threads = 512;

struct LogProbs {
  float* out;                   // (N, V)
  const __nv_bfloat16* h;       // (N, d)
  const float* code_log_probs;  // (N, K)
  const __nv_bfloat16* codebook;
  const float* bias;
  const std::int32_t *member_begin, *members, *cluster_of_token, *position_of_token;
  const std::uint8_t* codes;  // (V, G) in member order
  std::int64_t rows, vocabulary;
  int d, groups, codes_per_group, width, clusters;
  float* tables;  // workspace, where shared memory is too small: (blocks, G Q, rows of a block)
  float* scores;  // workspace: (blocks, rows of a block, V)
  float* shifts;  // workspace: (blocks, rows of a block, K)
};

/// N floats that are read and written together.
template <int N>
struct alignas(4 * N) Floats {
  float at[N];
};

/// table (G Q): h_g . u_{g,q} of the block's rows, zeros from row `count` on. Neighbouring threads take neighbouring codes.
template <int N>
__device__ __forceinline__ void make_tables(Floats<N>* table, const LogProbs& p, std::int64_t row, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < p.groups * p.codes_per_group; i += block_threads) {
    const __nv_bfloat16* const code = p.codebook + static_cast<std::int64_t>(i) * p.width;
    const __nv_bfloat16* const h = p.h + row * p.d + i / p.codes_per_group * p.width;
    Floats<N> sum{};
    for (int j = 0; j < p.width; ++j) {
      const float u = to_float(code[j]);
#pragma unroll
      for (int r = 0; r < N; ++r) {
        if (r < count) sum.at[r] += u * to_float(h[static_cast<std::int64_t>(r) * p.d + j]);
      }
    }
    table[i] = sum;
  }
}

/// Scores of one cluster by one warp, to the block's workspace; shift = log-probability of the cluster - lse.
template <int N>
__device__ __forceinline__ void score_cluster(float* scores, float* shifts, const Floats<N>* table, const LogProbs& p,
                                              std::int64_t row, int count, int k) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  float maximum[N], sum[N];
#pragma unroll
  for (int r = 0; r < N; ++r) {
    maximum[r] = -FLT_MAX;
    sum[r] = 0;
  }
  for (std::int32_t w = p.member_begin[k] + lane; w < p.member_begin[k + 1]; w += warp_size) {
    const std::uint8_t* const codes = p.codes + static_cast<std::int64_t>(w) * p.groups;
    Floats<N> score{};
    for (int g = 0; g < p.groups; ++g) {
      const Floats<N> entry = table[g * p.codes_per_group + codes[g]];
#pragma unroll
      for (int r = 0; r < N; ++r) score.at[r] += entry.at[r];
    }
    const float bias = p.bias[p.members[w]];
#pragma unroll
    for (int r = 0; r < N; ++r) {
      const float x = score.at[r] + bias;
      scores[r * p.vocabulary + w] = x;
      if (x > maximum[r]) {
        sum[r] *= exp_approx(maximum[r] - x);
        maximum[r] = x;
      }
      sum[r] += exp_approx(x - maximum[r]);  // a NaN stays in the sum
    }
  }
#pragma unroll
  for (int r = 0; r < N; ++r) {
    const float all = warp_max(maximum[r]);
    const float total = warp_sum(sum[r] * exp_approx(maximum[r] - all));
    if (lane == 0 && r < count) {
      shifts[r * p.clusters + k] = p.code_log_probs[(row + r) * p.clusters + k] - (all + logf(total));
    }
  }
}

template <int N, bool shared_tables>
__global__ void __launch_bounds__(block_threads) log_probs_kernel(GridDependency dependency, LogProbs p) {
  dependency.wait();
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t block = blockIdx.x;
  Floats<N>* table = nullptr;
  if constexpr (shared_tables) {
    table = dynamic_shared<Floats<N>>();
  } else {
    table = reinterpret_cast<Floats<N>*>(p.tables) + block * p.groups * p.codes_per_group;
  }
  float* const scores = p.scores + block * N * p.vocabulary;
  float* const shifts = p.shifts + block * N * p.clusters;
  for (std::int64_t row = block * N; row < p.rows; row += static_cast<std::int64_t>(gridDim.x) * N) {
    const int count = static_cast<int>(p.rows - row < N ? p.rows - row : N);
    make_tables(table, p, row, count);  // nobody reads the rows before's any more
    __syncthreads();
    for (int k = thread / warp_size; k < p.clusters; k += block_threads / warp_size) {
      score_cluster<N>(scores, shifts, table, p, row, count, k);
    }
    __syncthreads();
    for (std::int64_t v = thread; v < p.vocabulary; v += block_threads) {
      const std::int32_t k = p.cluster_of_token[v], w = p.position_of_token[v];
      for (int r = 0; r < count; ++r) {
        p.out[(row + r) * p.vocabulary + v] = scores[r * p.vocabulary + w] + shifts[r * p.clusters + k];
      }
    }
  }
}

template <int N, bool shared_tables>
void launch_rows(const Context& context, LogProbs& p, std::int64_t table_entries) {
  const std::int64_t blocks =
      std::min<std::int64_t>(ceil_div(p.rows, std::int64_t{N}), std::max(context.multiprocessors, 1));
  const std::int64_t table = shared_tables ? 0 : table_entries * N, shifts = std::int64_t{N} * p.clusters;
  const std::int64_t floats = blocks * (table + N * p.vocabulary + shifts);
  p.tables = static_cast<float*>(context.workspace->get(static_cast<std::size_t>(floats) * sizeof(float)));
  p.scores = p.tables + blocks * table;
  p.shifts = p.scores + blocks * N * p.vocabulary;
  launch(log_probs_kernel<N, shared_tables>,
         {static_cast<unsigned>(blocks), block_threads,
          shared_tables ? static_cast<std::size_t>(table_entries) * sizeof(Floats<N>) : 0, context.stream},
         p);
}

}  // namespace

template <>
void run(const Context& context, const MemberLogProbs& op) {
  const CodeMapView& map = op.map;
  const std::int64_t rows = op.h.extent(0), vocabulary = op.log_probs.extent(1), clusters = op.code_log_probs.extent(1);
  if (rows == 0 || vocabulary == 0) return;
  if (are_own_vectors(op.member_codebook)) {
    return own_vector_log_probs(context, op);
  }
  LogProbs p{};
  p.out = op.log_probs.f32();
  p.h = bf16(op.h);
  p.code_log_probs = op.code_log_probs.f32();
  p.codebook = bf16(op.member_codebook);
  p.bias = op.token_bias.f32();
  p.member_begin = map.member_begin.i32();
  p.members = map.members.i32();
  p.cluster_of_token = map.cluster_of_token.i32();
  p.position_of_token = map.position_of_token.i32();
  p.codes = map.member_codes.as<std::uint8_t>();
  p.rows = rows;
  p.vocabulary = vocabulary;
  p.d = static_cast<int>(op.h.extent(1));
  p.clusters = static_cast<int>(clusters);
  if (op.member_codebook) {
    p.groups = static_cast<int>(op.member_codebook.extent(0));
    p.codes_per_group = static_cast<int>(op.member_codebook.extent(1));
    p.width = static_cast<int>(op.member_codebook.extent(2));
  }
  const std::int64_t entries = std::int64_t{p.groups} * p.codes_per_group;
  const auto fits = [&](std::int64_t floats) {
    return entries * floats * static_cast<std::int64_t>(sizeof(float)) <=
           static_cast<std::int64_t>(context.shared_memory_per_block);
  };
  if (fits(4)) {
    launch_rows<4, true>(context, p, entries);
  } else if (fits(1)) {
    launch_rows<1, true>(context, p, entries);
  } else {
    launch_rows<1, false>(context, p, entries);
  }
}

}  // namespace vqlm::cuda
