// Members without vectors (G = 0): s_w = b_w whatever the row, so a cluster's softmax is computed once and its gradient
// needs only how often each member was the target. V reads of b and 8 N bytes of rows: microseconds, not measured.
#include <cfloat>

#include "core/cuda/launch.h"
#include "core/cuda/member_tiles.h"

namespace vqlm::cuda::members {
namespace {

constexpr int threads = 256;
constexpr int counted = 2048;  // members whose targets are counted in one pass over the cluster's rows

/// dbias_w += scale * (rows * softmax_w - how often w is the target). Integer counts do not depend on their order.
__device__ void add_bias_gradient(const Problem& problem, int k, float lse) {
  __shared__ int counts[counted];
  const int thread = static_cast<int>(threadIdx.x);
  const std::int32_t first_row = problem.row_begin[k], rows = problem.row_begin[k + 1] - first_row;
  const std::int32_t first = problem.member_begin[k], members = problem.member_begin[k + 1] - first;
  for (int begin = 0; begin < members; begin += counted) {
    __syncthreads();  // the counts may still be read
    for (int w = thread; w < counted; w += threads) counts[w] = 0;
    __syncthreads();
    for (int r = thread; r < rows; r += threads) {
      const int w = problem.position_of_token[problem.target[problem.order[first_row + r]]] - first - begin;
      if (w >= 0 && w < counted) atomicAdd(&counts[w], 1);
    }
    __syncthreads();
    for (int w = thread; w < counted && begin + w < members; w += threads) {
      const std::int32_t token = problem.members[first + begin + w];
      const float expected = static_cast<float>(rows) * expf(problem.bias[token] - lse);
      problem.dbias[token] += problem.scale * (expected - static_cast<float>(counts[w]));
    }
  }
}

/// A block per cluster.
__global__ void __launch_bounds__(threads) bias_entropy_kernel(GridDependency dependency, Problem problem) {
  dependency.wait();
  const int k = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const std::int32_t first_row = problem.row_begin[k], rows = problem.row_begin[k + 1] - first_row;
  const std::int32_t first = problem.member_begin[k], members = problem.member_begin[k + 1] - first;
  if (rows == 0 || members < 2) return;
  const std::int32_t* const tokens = problem.members + first;
  float maximum = -FLT_MAX, sum = 0;
  for (int w = thread; w < members; w += threads) maximum = fmaxf(maximum, problem.bias[tokens[w]]);
  maximum = block_max(maximum);
  for (int w = thread; w < members; w += threads) sum += expf(problem.bias[tokens[w]] - maximum);
  const float log_sum = logf(block_sum(sum));
  for (int r = thread; r < rows; r += threads) {
    const std::int32_t n = problem.order[first_row + r];
    problem.nll[n] += (maximum - problem.bias[problem.target[n]]) + log_sum;
  }
  if (problem.dh != nullptr) add_bias_gradient(problem, k, maximum + log_sum);
}

}  // namespace

void bias_entropy(const Context& context, const Problem& problem) {
  launch(bias_entropy_kernel, {static_cast<unsigned>(problem.clusters), threads, 0, context.stream}, problem);
}

}  // namespace vqlm::cuda::members
