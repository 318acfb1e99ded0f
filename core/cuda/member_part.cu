// The cross entropy inside a cluster whose members are cut over ranks, some of each cluster on every rank: the kernels of
// member_entropy.cu over the part's own members of all ranks' rows. Forward ends in a row's statistics, which ranks exchange
// as a dense head's shards do, and backward begins with the log sum over all parts; in between nothing is kept, so that
// backward makes the scores once more: 8 N m d operations in place of 6, m being the part's members of the row's cluster.
// Not measured on a GPU.
#include <algorithm>
#include <cfloat>

#include "core/cuda/launch.h"
#include "core/cuda/member_entropy.h"
#include "core/cuda/member_tiles.h"
#include "core/cuda/ops.h"
#include "core/ops/member_part.h"

namespace vqlm::cuda {
namespace members {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads)
    empty_statistics_kernel(GridDependency dependency, float* statistics, std::int64_t rows) {
  dependency.wait();
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (n >= rows) return;
  statistics[3 * n] = -FLT_MAX;
  statistics[3 * n + 1] = 0;
  statistics[3 * n + 2] = 0;
}

const bf16* activations(const Tensor& x) {
  VQLM_ASSERT(x.dtype() == DType::bf16);
  return static_cast<const bf16*>(x.data());
}

template <class O>
Problem part_problem(const O& op) {
  Problem problem{};
  problem.h = activations(op.h);
  problem.codebook = activations(op.vectors);
  problem.bias = op.token_bias.f32();
  problem.target = op.targets.i32();
  problem.order = op.order.i32();
  problem.row_begin = op.row_begin.i32();
  problem.member_begin = op.map.member_begin.i32();
  problem.members = op.map.members.i32();
  problem.position_of_token = op.map.position_of_token.i32();
  problem.d = static_cast<int>(op.h.extent(1));
  problem.clusters = static_cast<int>(op.row_begin.numel() - 1);
  problem.groups = 1;
  problem.width = problem.d;
  problem.aligned = problem.d % 8 == 0 && is_aligned(problem.h) && is_aligned(problem.codebook);
  return problem;
}

}  // namespace

void member_part_gradient(const Context& context, const MemberPartGradient& op, std::int64_t wave_scores) {
  const std::int64_t rows = op.h.extent(0);
  if (rows == 0 || op.map.members.numel() == 0) return;
  Problem problem = part_problem(op);
  problem.lse = op.lse.f32();
  problem.dh = static_cast<bf16*>(op.gradients.dh.data());
  problem.dcodebook = op.gradients.dmember_codebook.f32();
  problem.dbias = op.gradients.dtoken_bias.f32();
  problem.scale = op.gradients.scale;
  problem.aligned = problem.aligned && is_aligned(problem.dh) && is_aligned(problem.dcodebook);
  vector_entropy(context, problem, rows, op.map.members.numel(), most_members(op.map), wave_scores);
}

void member_statistics(const Context& context, const MemberStatistics& op, std::int64_t wave_scores) {
  const std::int64_t rows = op.h.extent(0);
  if (rows == 0) return;
  launch(empty_statistics_kernel,
         {static_cast<unsigned>(ceil_div(rows, std::int64_t{threads})), threads, 0, context.stream},
         op.statistics.f32(), rows);
  if (op.map.members.numel() == 0) return;
  Problem problem = part_problem(op);
  problem.statistics = op.statistics.f32();
  vector_entropy(context, problem, rows, op.map.members.numel(), most_members(op.map), wave_scores);
}

}  // namespace members

template <>
void run(const Context& context, const MemberStatistics& op) {
  members::member_statistics(context, op, members::most_wave_scores);
}

template <>
void run(const Context& context, const MemberPartGradient& op) {
  members::member_part_gradient(context, op, members::most_wave_scores);
}

}  // namespace vqlm::cuda
