// The VQ head's second factor where members have vectors of their own. They stand in member order, so a cluster's vectors
// are a contiguous tile that products read in place: nothing is gathered, and the gradient's product adds to its rows in
// place.
//
// A cluster's gradient rows have one owner, the thread with the cluster's first unit. A thread that goes on with a cluster
// which another began, and that can only be the first cluster of its part, sums into rows of its own, (members, d), added
// at the end in thread order.
//
// member_entropy: 6 N m d operations with gradients (m members of the row's cluster), and 12 V d bytes where every
// cluster has rows: vectors read, their gradient read and written. member_log_probs: 2 N V d operations, and for one row
// 4 V d bytes.
#include "core/cpu/member_rows.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/cpu/member_units.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/cpu/sgemm.h"

namespace vqlm::cpu {
namespace members {
namespace {

// Floats of a cluster's vectors, up to which threads may share its units: 16 MiB of gradient for each thread but the first.
constexpr std::int64_t most_shared = std::int64_t{1} << 22;

/// Where a thread's gradients go.
struct Target {
  float* vectors;             // (V, d): of clusters that the thread owns
  float* continued;           // (members, d): of the cluster that another thread began
  std::int64_t continued_id;  // that cluster, or -1
  float* bias;                // (V)
};

/// The whole cross entropy of one unit.
void own_vector_unit(const Problem& problem, const Unit& unit, const Workspace& work, const Target& target) {
  const std::int64_t d = problem.sizes.vector(), first = problem.member_begin[unit.cluster];
  const std::int64_t count = problem.member_count(unit.cluster), tile = problem.members_per_tile();
  const float* const vectors = problem.codebook + first * d;
  load_unit(problem, unit, work);
  for (std::int64_t t = 0; t < count; t += tile) {
    score_tile(work, vectors + t * d, unit.rows, count, t, std::min(tile, count - t), d);
  }
  entropy_of_rows(problem, unit, work);
  if (problem.dh == nullptr) return;

  float* const dvectors = unit.cluster == target.continued_id ? target.continued : target.vectors + first * d;
  for (std::int64_t t = 0; t < count; t += tile) {
    const std::int64_t in_tile = std::min(tile, count - t);
    const MatrixView ds{work.scores + t, count};
    sgemm(Transpose::no, Transpose::no, unit.rows, d, in_tile, 1.0f, ds, {vectors + t * d, d}, t == 0 ? 0.0f : 1.0f,
          work.drows, d);
    sgemm(Transpose::yes, Transpose::no, in_tile, d, unit.rows, 1.0f, ds, {work.rows, d}, 1.0f, dvectors + t * d, d);
  }
  add_unit_gradients(problem, unit, work, target.bias);
}

/// For each part the cluster of its first unit where an earlier part has begun it, or -1.
std::vector<std::int64_t> continued_clusters(const Plan& plan) {
  std::vector<std::int64_t> continued;
  for (std::size_t part = 0; part + 1 < plan.part_begin.size(); ++part) {
    const std::size_t begin = plan.part_begin[part];
    const bool goes_on =
        begin > 0 && begin < plan.part_begin[part + 1] && plan.units[begin].cluster == plan.units[begin - 1].cluster;
    continued.push_back(goes_on ? plan.units[begin].cluster : -1);
  }
  return continued;
}

/// Adds what the parts have summed elsewhere to the caller's gradients, in the order of parts.
void add_continued(const Problem& problem, const MemberGradients& gradients, const std::vector<std::int64_t>& continued,
                   const Scratch& rows, const Scratch& biases) {
  const std::int64_t d = problem.sizes.vector(), vocabulary = gradients.dtoken_bias.numel();
  const auto parts = static_cast<int>(continued.size());
  for (int part = 1; part < parts; ++part) {
    const std::int64_t cluster = continued[static_cast<std::size_t>(part)];
    if (cluster < 0) continue;
    float* const to = gradients.dmember_codebook.f32() + problem.member_begin[cluster] * d;
    const float* const from = rows.of_thread(part - 1);
    parallel_blocks(problem.member_count(cluster) * d, block_elements, [&](std::int64_t begin, std::int64_t end) {
      row_add(to + begin, from + begin, 1.0f, end - begin);
    });
  }
  parallel_blocks(vocabulary, block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (int part = 1; part < parts; ++part) {
      row_add(gradients.dtoken_bias.f32() + begin, biases.of_thread(part - 1) + begin, 1.0f, end - begin);
    }
  });
}

}  // namespace

void own_vector_entropy(const Problem& problem, const MemberGradients& gradients, std::int64_t clusters) {
  const int threads = omp_get_max_threads();
  const std::int64_t d = problem.sizes.vector(), vocabulary = gradients.dtoken_bias.numel();
  const bool has_gradients = problem.dh != nullptr;
  const Plan plan = make_plan(problem, clusters, threads, most_shared);
  const std::vector<std::int64_t> continued = continued_clusters(plan);
  std::int64_t shared = 0;  // members of the largest cluster that two parts have
  for (const std::int64_t k : continued) shared = std::max(shared, k < 0 ? 0 : problem.member_count(k));
  const Scratch scratch(threads, Workspace::floats(problem, plan.largest));
  const Scratch rows(threads - 1, has_gradients ? shared * d : 0);
  const Scratch biases(threads - 1, has_gradients ? vocabulary : 0);
#pragma omp parallel for schedule(static, 1)
  for (int part = 0; part < threads; ++part) {
    const auto index = static_cast<std::size_t>(part);
    Target target{gradients.dmember_codebook.f32(), nullptr, continued[index], gradients.dtoken_bias.f32()};
    if (has_gradients && part > 0) {
      target.bias = biases.of_thread(part - 1);
      std::fill_n(target.bias, vocabulary, 0.0f);
      if (target.continued_id >= 0) {
        target.continued = rows.of_thread(part - 1);
        std::fill_n(target.continued, problem.member_count(target.continued_id) * d, 0.0f);
      }
    }
    const Workspace work(problem, plan.largest, scratch.of_thread(part));
    for (std::size_t u = plan.part_begin[index]; u < plan.part_begin[index + 1]; ++u) {
      own_vector_unit(problem, plan.units[u], work, target);
    }
  }
  if (has_gradients) add_continued(problem, gradients, continued, rows, biases);
}

}  // namespace members

void score_member_rows(float* scores, const float* h, const float* vectors, std::int64_t count, std::int64_t d) {
  for (std::int64_t w = 0; w < count; ++w) scores[w] = row_dot(h, vectors + w * d, d);
}

void own_vector_log_probs(const MemberLogProbs& op) {
  const CodeMapView& map = op.map;
  const std::int64_t rows = op.h.extent(0), d = op.h.extent(1), vocabulary = op.log_probs.extent(1);
  const std::int64_t clusters = op.code_log_probs.extent(1);
  if (rows == 0) return;
  float* const out = op.log_probs.f32();
  const float *const u = op.member_codebook.f32(), *const of_codes = op.code_log_probs.f32(),
                     *const bias = op.token_bias.f32();
  const std::int32_t *const member_begin = map.member_begin.i32(), *const members = map.members.i32(),
                            *const position = map.position_of_token.i32();
  // Scores in member order stand in the result itself; with one row they take the matrix's time to come from memory.
  if (rows == 1) {
    parallel_blocks(vocabulary, rows_per_block(d), [&](std::int64_t begin, std::int64_t end) {
      score_member_rows(out + begin, op.h.f32(), u + begin * d, end - begin, d);
    });
  } else {
    sgemm(Transpose::no, Transpose::yes, rows, vocabulary, d, 1.0f, {op.h.f32(), d}, {u, d}, 0.0f, out, vocabulary);
  }
  const Scratch ordered_bias(1, vocabulary), row_copy(omp_get_max_threads(), vocabulary);
  float* const b = ordered_bias.of_thread(0);
  for (std::int64_t w = 0; w < vocabulary; ++w) b[w] = bias[members[w]];
#pragma omp parallel for collapse(2) schedule(dynamic, 16)
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t k = 0; k < clusters; ++k) {
      const std::int64_t first = member_begin[k], count = member_begin[k + 1] - first;
      if (count == 0) continue;
      float* const s = out + n * vocabulary + first;
      const RowStatistics found = row_statistics(s, b + first, count);
      row_shift(s, b + first, found.maximum + std::log(found.sum) - of_codes[n * clusters + k], count);
    }
  }
#pragma omp parallel for schedule(static) if (rows > 1)
  for (std::int64_t n = 0; n < rows; ++n) {
    float *const row = out + n * vocabulary, *const in_member_order = row_copy.of_thread(omp_get_thread_num());
    std::copy_n(row, vocabulary, in_member_order);
    for (std::int64_t v = 0; v < vocabulary; ++v) row[v] = in_member_order[position[v]];
  }
}

}  // namespace vqlm::cpu
