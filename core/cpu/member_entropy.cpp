// The VQ head's second factor: cross entropy among the members of the target's cluster. Rows arrive sorted by cluster,
// so a block of rows meets its cluster's members in three small products; members' vectors are put together from the
// codebook tile by tile and never stored for the whole vocabulary. Members with vectors of their own: member_rows.cpp.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/member_kernels.h"
#include "core/cpu/member_rows.h"
#include "core/cpu/member_units.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/cpu/sgemm.h"
#include "core/ops/member_entropy.h"

namespace vqlm::cpu {
namespace {

using namespace members;

/// Where a thread's gradients go: the caller's tensors for the first thread, zeroed buffers for the others.
struct Accumulators {
  float* codebook;  // (G, Q, width)
  float* bias;      // (V)
};

/// The whole cross entropy of one unit.
void member_unit(const Problem& problem, const Unit& unit, const Workspace& work, const Accumulators& gradients) {
  const std::int64_t d = problem.sizes.vector(), first = problem.member_begin[unit.cluster];
  const std::int64_t count = problem.member_count(unit.cluster), tile = problem.members_per_tile();
  const std::uint8_t* const codes = problem.codes + first * problem.sizes.groups;
  load_unit(problem, unit, work);
  for (std::int64_t t = 0; t < count; t += tile) {
    const std::int64_t in_tile = std::min(tile, count - t);
    gather_members(work.vectors, problem.codebook, codes + t * problem.sizes.groups, in_tile, problem.sizes);
    score_tile(work, work.vectors, unit.rows, count, t, in_tile, d);
  }
  entropy_of_rows(problem, unit, work);
  if (problem.dh == nullptr) return;

  for (std::int64_t t = 0; t < count; t += tile) {
    const std::int64_t in_tile = std::min(tile, count - t);
    const std::uint8_t* const tile_codes = codes + t * problem.sizes.groups;
    if (count > tile) gather_members(work.vectors, problem.codebook, tile_codes, in_tile, problem.sizes);
    const MatrixView ds{work.scores + t, count};
    sgemm(Transpose::no, Transpose::no, unit.rows, d, in_tile, 1.0f, ds, {work.vectors, d}, t == 0 ? 0.0f : 1.0f,
          work.drows, d);
    sgemm(Transpose::yes, Transpose::no, in_tile, d, unit.rows, 1.0f, ds, {work.rows, d}, 0.0f, work.vectors, d);
    scatter_add_members(gradients.codebook, work.vectors, tile_codes, in_tile, problem.sizes);
  }
  add_unit_gradients(problem, unit, work, gradients.bias);
}

/// Adds the buffers of threads 1.. to the caller's gradients in thread order.
void add_parts(float* out, const Scratch& parts, int threads, std::int64_t offset, std::int64_t count) {
  parallel_blocks(count, block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (int part = 0; part + 1 < threads; ++part) {
      row_add(out + begin, parts.of_thread(part) + offset + begin, 1.0f, end - begin);
    }
  });
}

/// Members' vectors are put together from their codes.
void vector_entropy(const Problem& problem, const MemberGradients& gradients, std::int64_t clusters) {
  const int threads = omp_get_max_threads();
  const std::int64_t codebook = problem.sizes.codebook(), vocabulary = gradients.dtoken_bias.numel();
  const Plan plan = make_plan(problem, clusters, threads, std::numeric_limits<std::int64_t>::max());
  const Scratch scratch(threads, Workspace::floats(problem, plan.largest));
  const bool shared = problem.dh != nullptr && threads > 1;
  const Scratch parts(threads - 1, shared ? ScratchCursor::rounded(codebook) + vocabulary : 0);
#pragma omp parallel for schedule(static, 1)
  for (int part = 0; part < threads; ++part) {
    Accumulators sums{gradients.dmember_codebook.f32(), gradients.dtoken_bias.f32()};
    if (shared && part > 0) {
      sums.codebook = parts.of_thread(part - 1);
      sums.bias = sums.codebook + ScratchCursor::rounded(codebook);
      std::fill_n(sums.codebook, codebook, 0.0f);
      std::fill_n(sums.bias, vocabulary, 0.0f);
    }
    const Workspace work(problem, plan.largest, scratch.of_thread(part));
    const auto index = static_cast<std::size_t>(part);
    for (std::size_t u = plan.part_begin[index]; u < plan.part_begin[index + 1]; ++u) {
      member_unit(problem, plan.units[u], work, sums);
    }
  }
  if (!shared) return;
  add_parts(gradients.dmember_codebook.f32(), parts, threads, 0, codebook);
  add_parts(gradients.dtoken_bias.f32(), parts, threads, ScratchCursor::rounded(codebook), vocabulary);
}

/// Members without vectors: s_w = b_w for every row, so a cluster's softmax is computed once and its gradient needs
/// only counts.
void bias_entropy(const Problem& problem, float* dbias, std::int64_t clusters) {
  parallel_blocks(clusters, 1, [&](std::int64_t k, std::int64_t) {
    const std::int64_t first = problem.member_begin[k], count = problem.member_count(k);
    if (problem.row_count(k) == 0 || count <= 1) return;
    std::vector<float> p(static_cast<std::size_t>(count));
    for (std::int64_t w = 0; w < count; ++w) {
      p[static_cast<std::size_t>(w)] = problem.bias[problem.members[first + w]];
    }
    const RowStatistics found = row_statistics(p.data(), nullptr, count);
    const float log_sum = std::log(found.sum);
    for (std::int32_t r = problem.row_begin[k]; r < problem.row_begin[k + 1]; ++r) {
      const std::int32_t n = problem.order[r], y = problem.target[n];
      problem.nll[n] += (found.maximum - problem.bias[y]) + log_sum;
      if (problem.dh != nullptr) dbias[y] -= problem.scale;
    }
    if (problem.dh == nullptr) return;
    row_softmax(p.data(), nullptr, found.maximum + log_sum, problem.scale * static_cast<float>(problem.row_count(k)),
                count);
    for (std::int64_t w = 0; w < count; ++w) dbias[problem.members[first + w]] += p[static_cast<std::size_t>(w)];
  });
}

}  // namespace

template <>
void run(const MemberEntropy& op) {
  const MemberGradients& gradients = op.gradients;
  const CodeMapView& map = op.map;
  const std::int64_t clusters = op.row_begin.numel() - 1, vocabulary = op.token_bias.numel();
  MemberSizes sizes{0, 0, 0};
  const bool own_vectors = are_own_vectors(op.member_codebook);
  if (own_vectors) {
    sizes = {1, vocabulary, op.h.extent(1)};
  } else if (op.member_codebook) {
    sizes = {op.member_codebook.extent(0), op.member_codebook.extent(1), op.member_codebook.extent(2)};
  }
  const Problem problem{sizes,
                        op.h.f32(),
                        op.member_codebook.f32(),
                        op.token_bias.f32(),
                        op.targets.i32(),
                        op.order.i32(),
                        op.row_begin.i32(),
                        map.member_begin.i32(),
                        map.members.i32(),
                        map.position_of_token.i32(),
                        own_vectors ? nullptr : map.member_codes.as<std::uint8_t>(),
                        op.nll.f32(),
                        gradients.dh.f32(),
                        gradients.scale};
  if (own_vectors) {
    own_vector_entropy(problem, gradients, clusters);
  } else if (op.member_codebook) {
    vector_entropy(problem, gradients, clusters);
  } else {
    bias_entropy(problem, gradients.dtoken_bias.f32(), clusters);
  }
}

}  // namespace vqlm::cpu
