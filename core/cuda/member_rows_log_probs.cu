// Log-probabilities of every token where the VQ head's members have vectors of their own: one product h U^T, whose scores
// in member order stand in the result itself, then a block a row: each cluster's softmax, and the row's change to token
// order through the block's workspace.
//
// Operations 2 N V d, a dense head's. Bytes besides the product's: the result read and written, 8 N V, and about 40 N V
// from the second-level cache for the change of order (a sector for each number). V 50,257, N 1,024, d 768: 79 GFLOP, 0.1
// ms at 790 TFLOP/s, and 0.4 GB, 0.1 ms; one row reads 2 V d bytes, 77 MB: 18 us. Not measured.
#include <algorithm>
#include <cfloat>

#include "core/cuda/device_utils.h"
#include "core/cuda/launch.h"
#include "core/cuda/member_rows.h"
#include "core/cuda/ops.h"
#include "core/ops/matmul.h"
#include "core/ops/member_log_probs.h"

namespace vqlm::cuda {
namespace {

constexpr int threads = 512;

struct Rows {
  float* out;                          // (N, V): scores in member order become log-probabilities in token order
  const float *code_log_probs, *bias;  // (N, K), (V)
  const std::int32_t *member_begin, *members, *cluster_of_token, *position_of_token;
  std::int64_t rows, vocabulary;
  int clusters;
  float* scores;  // workspace: (blocks, V)
  float* shifts;  // workspace: (blocks, K)
};

/// scores: row + bias of cluster k, by one warp; shift = log-probability of the cluster - lse.
__device__ __forceinline__ void score_cluster(float* scores, float* shifts, const float* row, const Rows& p,
                                              std::int64_t n, int k) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  float maximum = -FLT_MAX, sum = 0;
  for (std::int32_t w = p.member_begin[k] + lane; w < p.member_begin[k + 1]; w += warp_size) {
    const float x = row[w] + p.bias[p.members[w]];
    scores[w] = x;
    if (x > maximum) {
      sum *= exp_approx(maximum - x);
      maximum = x;
    }
    sum += exp_approx(x - maximum);  // a NaN stays in the sum
  }
  const float all = warp_max(maximum), total = warp_sum(sum * exp_approx(maximum - all));
  if (lane == 0) shifts[k] = p.code_log_probs[n * p.clusters + k] - (all + logf(total));
}

__global__ void __launch_bounds__(threads) own_vector_log_probs_kernel(GridDependency dependency, Rows p) {
  dependency.wait();
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t block = blockIdx.x;
  float *const scores = p.scores + block * p.vocabulary, *const shifts = p.shifts + block * p.clusters;
  for (std::int64_t n = block; n < p.rows; n += gridDim.x) {
    float* const row = p.out + n * p.vocabulary;
    __syncthreads();  // the row before may still be read from the workspace
    for (int k = thread / warp_size; k < p.clusters; k += threads / warp_size) {
      score_cluster(scores, shifts, row, p, n, k);
    }
    __syncthreads();
    for (std::int64_t v = thread; v < p.vocabulary; v += threads) {
      row[v] = scores[p.position_of_token[v]] + shifts[p.cluster_of_token[v]];
    }
  }
}

}  // namespace

void own_vector_log_probs(const Context& context, const MemberLogProbs& op) {
  const CodeMapView& map = op.map;
  run(context,
      Matmul{
          .c = op.log_probs, .a = op.h, .b = op.member_codebook, .tb = Transpose::yes, .accumulate = Accumulate::no});
  Rows p{};
  p.out = op.log_probs.f32();
  p.code_log_probs = op.code_log_probs.f32();
  p.bias = op.token_bias.f32();
  p.member_begin = map.member_begin.i32();
  p.members = map.members.i32();
  p.cluster_of_token = map.cluster_of_token.i32();
  p.position_of_token = map.position_of_token.i32();
  p.rows = op.log_probs.extent(0);
  p.vocabulary = op.log_probs.extent(1);
  p.clusters = static_cast<int>(op.code_log_probs.extent(1));
  // Four blocks of 512 threads fill a multiprocessor.
  const auto blocks = std::min<std::int64_t>(p.rows, std::int64_t{4} * std::max(context.multiprocessors, 1));
  const std::int64_t floats = blocks * (p.vocabulary + p.clusters);
  p.scores = static_cast<float*>(context.workspace->get(static_cast<std::size_t>(floats) * sizeof(float)));
  p.shifts = p.scores + blocks * p.vocabulary;
  launch(own_vector_log_probs_kernel, {static_cast<unsigned>(blocks), threads, 0, context.stream}, p);
}

}  // namespace vqlm::cuda
