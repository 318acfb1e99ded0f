// The cross entropy inside a cluster whose members are cut over ranks: the units and products of member_rows.cpp, which end
// in statistics, or begin with the log sum over all parts.
#include "core/ops/member_part.h"

#include <limits>

#include "core/cpu/member_units.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"

namespace vqlm::cpu {
namespace {

template <class O>
members::Problem part_problem(const O& op) {
  members::Problem problem{};
  problem.sizes = {1, op.map.members.numel(), op.h.extent(1)};
  problem.h = op.h.f32();
  problem.codebook = op.vectors.f32();
  problem.bias = op.token_bias.f32();
  problem.target = op.targets.i32();
  problem.order = op.order.i32();
  problem.row_begin = op.row_begin.i32();
  problem.member_begin = op.map.member_begin.i32();
  problem.members = op.map.members.i32();
  problem.position_of_token = op.map.position_of_token.i32();
  return problem;
}

}  // namespace

template <>
void run(const MemberStatistics& op) {
  members::Problem problem = part_problem(op);
  problem.statistics = op.statistics.f32();
  parallel_blocks(op.h.extent(0), block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      float* const row = problem.statistics + 3 * n;
      row[0] = std::numeric_limits<float>::lowest(), row[1] = 0, row[2] = 0;
    }
  });
  own_vector_entropy(problem, MemberGradients{}, op.row_begin.numel() - 1);
}

template <>
void run(const MemberPartGradient& op) {
  members::Problem problem = part_problem(op);
  problem.lse = op.lse.f32();
  problem.dh = op.gradients.dh.f32();
  problem.scale = op.gradients.scale;
  own_vector_entropy(problem, op.gradients, op.row_begin.numel() - 1);
}

}  // namespace vqlm::cpu
