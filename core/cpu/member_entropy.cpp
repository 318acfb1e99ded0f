// The VQ head's second factor: cross entropy among the members of the target's cluster. Rows arrive sorted by cluster,
// so a block of rows meets its cluster's members in three small products; members' vectors are put together from the
// codebook tile by tile and never stored for the whole vocabulary.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/cpu/member_kernels.h"
#include "core/cpu/ops.h"
#include "core/cpu/parallel.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/cpu/sgemm.h"

namespace vqlm::cpu {
namespace {

// Bounds of a thread's scratch in floats: 4 MiB of scores and 0.5 MiB of members' vectors (half of a second-level
// cache; the codebook itself wants the other half).
constexpr std::int64_t score_floats = std::int64_t{1} << 20;
constexpr std::int64_t vector_floats = std::int64_t{1} << 17;

/// What one call works on.
struct Problem {
  MemberSizes sizes;
  const float *h, *codebook, *bias;
  const std::int32_t *target, *order, *row_begin;
  const std::int32_t *member_begin, *members, *position_of_token;
  const std::uint8_t* codes;
  float *nll, *dh;  // dh null: no gradients
  float scale;

  std::int64_t member_count(std::int64_t cluster) const {
    return member_begin[cluster + 1] - member_begin[cluster];
  }
  std::int64_t row_count(std::int64_t cluster) const { return row_begin[cluster + 1] - row_begin[cluster]; }
  /// Rows of a cluster with this many members that are done together.
  std::int64_t rows_per_unit(std::int64_t member_total) const {
    const std::int64_t by_vectors = std::max<std::int64_t>(16, vector_floats / sizes.vector());
    return std::clamp<std::int64_t>(score_floats / member_total, 1, std::min<std::int64_t>(128, by_vectors));
  }
  /// Members whose vectors are put together at once.
  std::int64_t members_per_tile() const { return std::max<std::int64_t>(16, vector_floats / sizes.vector()); }
};

/// A block of rows of one cluster.
struct Unit {
  std::int64_t cluster;
  std::int64_t begin, rows;  // order[begin .. begin + rows)
};

/// Where a thread's gradients go: the caller's tensors for the first thread, zeroed buffers for the others.
struct Accumulators {
  float* codebook;  // (G, Q, width)
  float* bias;      // (V)
};

/// A thread's working memory for units of at most the sizes it was made for.
struct Workspace {
  float* scores;             // (rows, members of the cluster)
  float* transposed_scores;  // (tile, rows)
  float* vectors;            // (tile, d): members, then their gradients
  float* rows;               // (rows, d)
  float* drows;              // (rows, d)
  float* bias;               // (members of the cluster)
  float* dbias;              // (members of the cluster)

  /// Carves the pieces for `problem` and clusters of up to `largest` members out of a block; returns the floats used.
  static std::int64_t floats(const Problem& problem, std::int64_t largest) {
    const std::int64_t d = problem.sizes.vector(), rows = problem.rows_per_unit(1);
    return ScratchCursor::rounded(std::max(score_floats, largest)) +
           ScratchCursor::rounded(problem.members_per_tile() * rows) +
           ScratchCursor::rounded(problem.members_per_tile() * d) + 2 * ScratchCursor::rounded(rows * d) +
           2 * ScratchCursor::rounded(largest);
  }
  Workspace(const Problem& problem, std::int64_t largest, float* block) {
    const std::int64_t d = problem.sizes.vector(), most_rows = problem.rows_per_unit(1);
    ScratchCursor cursor(block);
    scores = cursor.take(std::max(score_floats, largest));
    transposed_scores = cursor.take(problem.members_per_tile() * most_rows);
    vectors = cursor.take(problem.members_per_tile() * d);
    rows = cursor.take(most_rows * d);
    drows = cursor.take(most_rows * d);
    bias = cursor.take(largest);
    dbias = cursor.take(largest);
  }
};

/// scores (rows, member_total)[:, first .. first + count) = rows (rows, d) vectors (count, d)^T.
void score_tile(const Workspace& work, std::int64_t rows, std::int64_t member_total, std::int64_t first,
                std::int64_t count, std::int64_t d) {
  // dnnl_sgemm repacks a transposed second operand; with few rows it reads it in place, with more it pays to make the
  // many members its first operand (oneDNN 2.6, d 512, 50 members, 16 rows: 126 against 33 GFLOP/s).
  if (rows < 16) {
    sgemm(Transpose::no, Transpose::yes, rows, count, d, 1.0f, {work.rows, d}, {work.vectors, d}, 0.0f,
          work.scores + first, member_total);
    return;
  }
  sgemm(Transpose::no, Transpose::yes, count, rows, d, 1.0f, {work.vectors, d}, {work.rows, d}, 0.0f,
        work.transposed_scores, rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* const row = work.scores + r * member_total + first;
    for (std::int64_t w = 0; w < count; ++w) row[w] = work.transposed_scores[w * rows + r];
  }
}

/// Scores to nll and, where there are gradients, to scale * (softmax - [target]) with its column sums added to dbias.
void entropy_of_rows(const Problem& problem, const Unit& unit, const Workspace& work) {
  const std::int64_t first = problem.member_begin[unit.cluster], count = problem.member_count(unit.cluster);
  for (std::int64_t r = 0; r < unit.rows; ++r) {
    float* const row = work.scores + r * count;
    const std::int32_t n = problem.order[unit.begin + r];
    const std::int64_t y = problem.position_of_token[problem.target[n]] - first;
    const RowStatistics found = row_statistics(row, work.bias, count);
    const float log_sum = std::log(found.sum);
    problem.nll[n] += (found.maximum - (row[y] + work.bias[y])) + log_sum;
    if (problem.dh == nullptr) continue;
    row_softmax(row, work.bias, found.maximum + log_sum, problem.scale, count);
    row[y] -= problem.scale;
    row_add(work.dbias, row, 1.0f, count);
  }
}

/// The whole cross entropy of one unit.
void member_unit(const Problem& problem, const Unit& unit, const Workspace& work,
                 const Accumulators& gradients) {
  const std::int64_t d = problem.sizes.vector(), first = problem.member_begin[unit.cluster];
  const std::int64_t count = problem.member_count(unit.cluster), tile = problem.members_per_tile();
  const std::uint8_t* const codes = problem.codes + first * problem.sizes.groups;
  for (std::int64_t r = 0; r < unit.rows; ++r) {
    std::copy_n(problem.h + problem.order[unit.begin + r] * d, d, work.rows + r * d);
  }
  for (std::int64_t w = 0; w < count; ++w) work.bias[w] = problem.bias[problem.members[first + w]];
  std::fill_n(work.dbias, count, 0.0f);
  for (std::int64_t t = 0; t < count; t += tile) {
    const std::int64_t in_tile = std::min(tile, count - t);
    gather_members(work.vectors, problem.codebook, codes + t * problem.sizes.groups, in_tile, problem.sizes);
    score_tile(work, unit.rows, count, t, in_tile, d);
  }
  entropy_of_rows(problem, unit, work);
  if (problem.dh == nullptr) return;

  for (std::int64_t t = 0; t < count; t += tile) {
    const std::int64_t in_tile = std::min(tile, count - t);
    const std::uint8_t* const tile_codes = codes + t * problem.sizes.groups;
    if (count > tile) gather_members(work.vectors, problem.codebook, tile_codes, in_tile, problem.sizes);
    const MatrixView ds{work.scores + t, count};
    sgemm(Transpose::no, Transpose::no, unit.rows, d, in_tile, 1.0f, ds, {work.vectors, d},
          t == 0 ? 0.0f : 1.0f, work.drows, d);
    sgemm(Transpose::yes, Transpose::no, in_tile, d, unit.rows, 1.0f, ds, {work.rows, d}, 0.0f, work.vectors,
          d);
    scatter_add_members(gradients.codebook, work.vectors, tile_codes, in_tile, problem.sizes);
  }
  for (std::int64_t r = 0; r < unit.rows; ++r) {
    row_add(problem.dh + problem.order[unit.begin + r] * d, work.drows + r * d, 1.0f, d);
  }
  for (std::int64_t w = 0; w < count; ++w) gradients.bias[problem.members[first + w]] += work.dbias[w];
}

/// Units cut into one consecutive part for each thread, of about equal cost.
struct Plan {
  std::vector<Unit> units;
  std::vector<std::size_t> part_begin;  // (threads + 1)
  std::int64_t largest = 0;             // members of the largest cluster that has rows
};

Plan make_plan(const Problem& problem, std::int64_t clusters, int threads) {
  Plan plan;
  std::vector<double> cost_before;  // of each unit
  double cost = 0;
  for (std::int64_t k = 0; k < clusters; ++k) {
    const std::int64_t members = problem.member_count(k), end = problem.row_begin[k + 1];
    if (members <= 1 || problem.row_count(k) == 0)
      continue;  // the only member has probability 1: no loss, no gradient
    plan.largest = std::max(plan.largest, members);
    const std::int64_t block = problem.rows_per_unit(members);
    for (std::int64_t begin = problem.row_begin[k]; begin < end; begin += block) {
      plan.units.push_back({k, begin, std::min(block, end - begin)});
      cost_before.push_back(cost);
      // Gathering a member's vector and spreading its gradient takes as long as its products with about 16 rows.
      cost += static_cast<double>(members) * static_cast<double>(16 + plan.units.back().rows);
    }
  }
  plan.part_begin.assign(1, 0);
  for (int part = 1; part <= threads; ++part) {
    const auto at = std::lower_bound(cost_before.begin(), cost_before.end(), cost * part / threads);
    plan.part_begin.push_back(static_cast<std::size_t>(at - cost_before.begin()));
  }
  return plan;
}

/// Adds the buffers of threads 1.. to the caller's gradients in thread order.
void add_parts(float* out, const Scratch& parts, int threads, std::int64_t offset, std::int64_t count) {
  parallel_blocks(count, block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (int part = 0; part + 1 < threads; ++part) {
      row_add(out + begin, parts.of_thread(part) + offset + begin, 1.0f, end - begin);
    }
  });
}

/// G > 0: members have vectors.
void vector_entropy(const Problem& problem, const Backend::MemberGradients& gradients,
                    std::int64_t clusters) {
  const int threads = omp_get_max_threads();
  const std::int64_t codebook = problem.sizes.codebook(), vocabulary = gradients.dtoken_bias.numel();
  const Plan plan = make_plan(problem, clusters, threads);
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

/// G = 0: s_w = b_w for every row, so a cluster's softmax is computed once and its gradient needs only counts.
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
    row_softmax(p.data(), nullptr, found.maximum + log_sum,
                problem.scale * static_cast<float>(problem.row_count(k)), count);
    for (std::int64_t w = 0; w < count; ++w)
      dbias[problem.members[first + w]] += p[static_cast<std::size_t>(w)];
  });
}

}  // namespace

void member_entropy(Tensor nll, const Backend::MemberGradients& gradients, Tensor h, Tensor targets,
                    Tensor order, Tensor row_begin, Tensor member_codebook, Tensor token_bias,
                    const CodeMapView& map) {
  VQLM_ASSERT(h.rank() == 2 && nll.numel() == h.extent(0) && targets.numel() == h.extent(0));
  const std::int64_t clusters = row_begin.numel() - 1, vocabulary = token_bias.numel();
  VQLM_ASSERT(map.member_begin.numel() == clusters + 1 && map.members.numel() == vocabulary);
  VQLM_ASSERT(map.position_of_token.numel() == vocabulary && order.numel() == targets.numel());
  VQLM_ASSERT(!gradients.dh ||
              (gradients.dh.shape() == h.shape() && gradients.dtoken_bias.numel() == vocabulary &&
               gradients.dmember_codebook.shape() == member_codebook.shape()));
  MemberSizes sizes{0, 0, 0};
  if (member_codebook) {
    sizes = {member_codebook.extent(0), member_codebook.extent(1), member_codebook.extent(2)};
    VQLM_ASSERT(sizes.vector() == h.extent(1) && map.member_codes.numel() == vocabulary * sizes.groups);
  }
  const Problem problem{sizes,
                        h.f32(),
                        member_codebook.f32(),
                        token_bias.f32(),
                        targets.i32(),
                        order.i32(),
                        row_begin.i32(),
                        map.member_begin.i32(),
                        map.members.i32(),
                        map.position_of_token.i32(),
                        map.member_codes.as<std::uint8_t>(),
                        nll.f32(),
                        gradients.dh.f32(),
                        gradients.scale};
  if (member_codebook) {
    vector_entropy(problem, gradients, clusters);
  } else {
    bias_entropy(problem, gradients.dtoken_bias.f32(), clusters);
  }
}

}  // namespace vqlm::cpu
