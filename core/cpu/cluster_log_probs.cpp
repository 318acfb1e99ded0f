// Log-probabilities of the members of chosen clusters, for exact sampling and the most probable tokens.
//
// A row's scores of n members come from their vectors, n d multiply-adds over codebook rows in cache, or by a table of its
// dot products with all sub-codes, Q d multiply-adds as a product of matrices and n G look-ups. A table serves all
// entries of a row that stand together, so a run of entries takes the table where its clusters have more than 4 Q members
// together. Floor: the members' n d floats out of a codebook that stays in cache. 196 members, d = 768, Q = 256, G = 32, one
// AVX-512 thread (processor time): an entry takes 7 us by vectors; a table 26 us, and then 1.6 us an entry. Members' own
// vectors (member_rows.h) are n d floats from memory.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu/member_kernels.h"
#include "core/cpu/member_rows.h"
#include "core/cpu/ops.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/ops/cluster_log_probs.h"

namespace vqlm::cpu {
namespace {

/// Consecutive entries of one row.
struct Run {
  std::int64_t begin, end;
  bool table;
};

std::vector<Run> find_runs(const std::int32_t* rows, const std::int32_t* clusters, std::int64_t entries,
                           const std::int32_t* member_begin, const MemberSizes& sizes) {
  std::vector<Run> runs;
  for (std::int64_t begin = 0, end = 0; begin < entries; begin = end) {
    std::int64_t members = 0;
    for (end = begin; end < entries && rows[end] == rows[begin]; ++end) {
      members += member_begin[clusters[end] + 1] - member_begin[clusters[end]];
    }
    runs.push_back({begin, end, sizes.groups > 0 && members > 4 * sizes.codes});
  }
  return runs;
}

}  // namespace

template <>
void run(const ClusterLogProbs& op) {
  const CodeMapView& map = op.map;
  const std::int64_t entries = op.rows.numel(), largest = map.largest_cluster;
  const std::int64_t d = op.h.extent(1);
  MemberSizes sizes{0, 0, 0};  // no codes
  const bool own_vectors = are_own_vectors(op.member_codebook);
  if (op.member_codebook && !own_vectors) {
    sizes = {op.member_codebook.extent(0), op.member_codebook.extent(1), op.member_codebook.extent(2)};
  }
  const std::int32_t *const row_of = op.rows.i32(), *const cluster_of = op.clusters.i32();
  const std::int32_t *const member_begin = map.member_begin.i32(), *const members = map.members.i32();
  const std::uint8_t* const codes = map.member_codes.as<std::uint8_t>();
  const float *const bias = op.token_bias.f32(), *const codebook = op.member_codebook.f32();
  const std::vector<Run> runs = find_runs(row_of, cluster_of, entries, member_begin, sizes);
  const bool tables = std::any_of(runs.begin(), runs.end(), [](const Run& run) { return run.table; });
  const Scratch table(1, tables ? sizes.table() : 0);

  const auto score = [&](std::int64_t i, bool by_table) {
    const std::int64_t first = member_begin[cluster_of[i]], count = member_begin[cluster_of[i] + 1] - first;
    VQLM_ASSERT(row_of[i] >= 0 && row_of[i] < op.h.extent(0) && count <= largest);
    float* const s = op.out.f32() + i * largest;
    std::fill(s + count, s + largest, -std::numeric_limits<float>::infinity());
    if (count == 0) return;
    if (own_vectors) {
      score_member_rows(s, op.h.f32() + row_of[i] * d, codebook + first * d, count, d);
    } else if (by_table) {
      look_up_members(s, table.of_thread(0), codes + first * sizes.groups, count, sizes);
    } else if (sizes.groups > 0) {
      score_members(s, op.h.f32() + row_of[i] * d, codebook, codes + first * sizes.groups, count, sizes);
    } else {
      std::fill_n(s, count, 0.0f);
    }
    for (std::int64_t w = 0; w < count; ++w) s[w] += bias[members[first + w]];
    const RowStatistics found = row_statistics(s, nullptr, count);
    row_shift(s, nullptr, found.maximum + std::log(found.sum), count);
  };
  for (const Run& run : runs) {
    if (!run.table) continue;
    make_member_tables(table.of_thread(0), op.h.f32() + row_of[run.begin] * d, 1, codebook, sizes);
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = run.begin; i < run.end; ++i) score(i, true);
  }
#pragma omp parallel for schedule(dynamic) if (runs.size() > 1)
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (runs[r].table) continue;
    for (std::int64_t i = runs[r].begin; i < runs[r].end; ++i) score(i, false);
  }
}

}  // namespace vqlm::cpu
