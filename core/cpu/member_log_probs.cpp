// Log-probabilities of every token from the VQ head. A row's dot products with all Q sub-codes of a group make a table
// of Q numbers; a token's score is then G look-ups, as in product quantisation search (Jegou et al., PAMI 2011).
//
// One row alone: look-ups from tables in the first-level cache (G KiB), eight codes a load. Several rows: their tables stand
// side by side, and a look-up is a vector of 16 rows from the second-level cache. V = 50,257, d = 768, Q = 256, G = 32, one
// AVX-512 thread (Zen 4, processor time): a row takes 0.53 ms, 0.34 of it 1.6 M look-ups of 0.21 ns, 0.03 the tables, the
// rest members' ids, biases and exponentials; 16 rows take 4.4 ms, 0.28 each. The floor is the codes and ids, 2.2 MB from the
// last-level cache: about 0.1 ms. Measured and not used: gathers (0.34 ns a look-up), in-register tables of 256 floats (0.26
// ns), byte planes with AVX-512 VBMI (0.09 ns, for which Highway 1.0 has no name).
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "core/cpu/member_kernels.h"
#include "core/cpu/member_rows.h"
#include "core/cpu/ops.h"
#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/ops/member_log_probs.h"

namespace vqlm::cpu {
namespace {

// From as many rows on, one interleaved table costs less than a table for each.
constexpr std::int64_t rows_worth_interleaving = 4;

/// What one call works on.
struct Problem {
  MemberSizes sizes;
  std::int64_t vocabulary, clusters;
  float* log_probs;                    // (N, V)
  const float *code_log_probs, *bias;  // (N, K), (V)
  const std::int32_t *member_begin, *members;
  const std::uint8_t* codes;

  std::int64_t largest_cluster() const {
    std::int64_t largest = 0;
    for (std::int64_t k = 0; k < clusters; ++k) {
      largest = std::max<std::int64_t>(largest, member_begin[k + 1] - member_begin[k]);
    }
    return largest;
  }
};

/// Consecutive rows with their tables: one for each, or interleaved.
struct RowBlock {
  std::int64_t begin, rows;
  bool together;
  const float* tables;
};

/// Cluster k's members for a block of rows; scratch (1 + rows, members).
void cluster_of_rows(const Problem& problem, const RowBlock& block, std::int64_t k, float* scratch) {
  const std::int64_t first = problem.member_begin[k], count = problem.member_begin[k + 1] - first;
  if (count == 0) return;
  const std::int32_t* const members = problem.members + first;
  const std::uint8_t* const codes = problem.codes + first * problem.sizes.groups;
  float *const bias = scratch, *const scores = scratch + count;
  for (std::int64_t w = 0; w < count; ++w) bias[w] = problem.bias[members[w]];
  if (block.together) {
    look_up_member_rows(scores, count, block.rows, block.tables, codes, count, problem.sizes);
  }
  for (std::int64_t r = 0; r < block.rows; ++r) {
    float* const s = scores + r * count;
    if (!block.together) {
      look_up_members(s, block.tables + r * problem.sizes.table(), codes, count, problem.sizes);
    }
    const RowStatistics found = row_statistics(s, bias, count);
    const std::int64_t n = block.begin + r;
    const float shift = problem.code_log_probs[n * problem.clusters + k] - found.maximum - std::log(found.sum);
    float* const row = problem.log_probs + n * problem.vocabulary;
    for (std::int64_t w = 0; w < count; ++w) row[members[w]] = (s[w] + bias[w]) + shift;
  }
}

}  // namespace

template <>
void run(const MemberLogProbs& op) {
  const CodeMapView& map = op.map;
  const std::int64_t rows = op.h.extent(0), d = op.h.extent(1), vocabulary = op.log_probs.extent(1);
  const std::int64_t clusters = op.code_log_probs.extent(1);
  if (are_own_vectors(op.member_codebook)) {
    return own_vector_log_probs(op);
  }
  MemberSizes sizes{0, 0, 0};
  if (op.member_codebook) {
    sizes = {op.member_codebook.extent(0), op.member_codebook.extent(1), op.member_codebook.extent(2)};
  }
  const Problem problem{sizes,
                        vocabulary,
                        clusters,
                        op.log_probs.f32(),
                        op.code_log_probs.f32(),
                        op.token_bias.f32(),
                        map.member_begin.i32(),
                        map.members.i32(),
                        map.member_codes.as<std::uint8_t>()};
  const std::int64_t most = std::min(table_rows, rows);
  const std::int64_t interleaved = most < rows_worth_interleaving ? 0 : sizes.interleaved_table();
  const Scratch tables(1, std::max(std::min(most, rows_worth_interleaving - 1) * sizes.table(), interleaved));
  // Not (rows, V) scores: fresh pages cost more than the look-ups whose sums they would hold.
  const Scratch scratch(omp_get_max_threads(), (1 + most) * problem.largest_cluster());

  for (std::int64_t begin = 0; begin < rows; begin += table_rows) {
    const std::int64_t in_block = std::min(table_rows, rows - begin);
    const RowBlock block{begin, in_block, sizes.groups > 0 && in_block >= rows_worth_interleaving, tables.of_thread(0)};
    if (sizes.groups > 0) {
      const auto make = block.together ? make_interleaved_tables : make_member_tables;
      make(tables.of_thread(0), op.h.f32() + begin * d, in_block, op.member_codebook.f32(), sizes);
    }
#pragma omp parallel for schedule(dynamic, 16)
    for (std::int64_t k = 0; k < clusters; ++k) {
      cluster_of_rows(problem, block, k, scratch.of_thread(omp_get_thread_num()));
    }
  }
}

}  // namespace vqlm::cpu
