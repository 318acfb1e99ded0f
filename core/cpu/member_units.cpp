#include "core/cpu/member_units.h"

#include <cmath>

#include "core/cpu/row_kernels.h"
#include "core/cpu/scratch.h"
#include "core/cpu/sgemm.h"

namespace vqlm::cpu::members {

std::int64_t Workspace::floats(const Problem& problem, std::int64_t largest) {
  const std::int64_t d = problem.sizes.vector(), rows = problem.rows_per_unit(1);
  const std::int64_t gathered = problem.codes != nullptr ? problem.members_per_tile() * d : 0;
  return ScratchCursor::rounded(std::max(score_floats, largest)) +
         ScratchCursor::rounded(problem.members_per_tile() * rows) + ScratchCursor::rounded(gathered) +
         2 * ScratchCursor::rounded(rows * d) + 2 * ScratchCursor::rounded(largest);
}

Workspace::Workspace(const Problem& problem, std::int64_t largest, float* block) {
  const std::int64_t d = problem.sizes.vector(), most_rows = problem.rows_per_unit(1);
  ScratchCursor cursor(block);
  scores = cursor.take(std::max(score_floats, largest));
  transposed_scores = cursor.take(problem.members_per_tile() * most_rows);
  vectors = problem.codes != nullptr ? cursor.take(problem.members_per_tile() * d) : nullptr;
  rows = cursor.take(most_rows * d);
  drows = cursor.take(most_rows * d);
  bias = cursor.take(largest);
  dbias = cursor.take(largest);
}

Plan make_plan(const Problem& problem, std::int64_t clusters, int threads, std::int64_t most_shared) {
  Plan plan;
  std::vector<double> cost_before;  // of each unit
  double cost = 0;
  for (std::int64_t k = 0; k < clusters; ++k) {
    const std::int64_t members = problem.member_count(k), end = problem.row_begin[k + 1];
    if (members < problem.fewest_members() || problem.row_count(k) == 0) continue;
    plan.largest = std::max(plan.largest, members);
    const std::int64_t block = problem.rows_per_unit(members);
    for (std::int64_t begin = problem.row_begin[k]; begin < end; begin += block) {
      plan.units.push_back({k, begin, std::min(block, end - begin)});
      cost_before.push_back(cost);
      // Fetching a member's vector and adding to its gradient takes as long as its products with about 16 rows.
      cost += static_cast<double>(members) * static_cast<double>(16 + plan.units.back().rows);
    }
  }
  plan.part_begin.assign(1, 0);
  for (int part = 1; part <= threads; ++part) {
    const auto at = std::lower_bound(cost_before.begin(), cost_before.end(), cost * part / threads);
    auto unit = static_cast<std::size_t>(at - cost_before.begin());
    while (unit > 0 && unit < plan.units.size() && plan.units[unit].cluster == plan.units[unit - 1].cluster &&
           problem.member_count(plan.units[unit].cluster) * problem.sizes.vector() > most_shared) {
      ++unit;
    }
    plan.part_begin.push_back(unit);
  }
  return plan;
}

void load_unit(const Problem& problem, const Unit& unit, const Workspace& work) {
  const std::int64_t d = problem.sizes.vector(), count = problem.member_count(unit.cluster);
  const std::int32_t* const members = problem.members + problem.member_begin[unit.cluster];
  for (std::int64_t r = 0; r < unit.rows; ++r) {
    std::copy_n(problem.h + problem.order[unit.begin + r] * d, d, work.rows + r * d);
  }
  for (std::int64_t w = 0; w < count; ++w) work.bias[w] = problem.bias[members[w]];
  std::fill_n(work.dbias, count, 0.0f);
}

void score_tile(const Workspace& work, const float* vectors, std::int64_t rows, std::int64_t member_total,
                std::int64_t first, std::int64_t count, std::int64_t d) {
  // dnnl_sgemm repacks a transposed second operand; with few rows it reads it in place, with more it pays to make the
  // many members its first operand (oneDNN 2.6, d 512, 50 members, 16 rows: 126 against 33 GFLOP/s).
  if (rows < 16) {
    sgemm(Transpose::no, Transpose::yes, rows, count, d, 1.0f, {work.rows, d}, {vectors, d}, 0.0f, work.scores + first,
          member_total);
    return;
  }
  sgemm(Transpose::no, Transpose::yes, count, rows, d, 1.0f, {vectors, d}, {work.rows, d}, 0.0f, work.transposed_scores,
        rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* const row = work.scores + r * member_total + first;
    for (std::int64_t w = 0; w < count; ++w) row[w] = work.transposed_scores[w * rows + r];
  }
}

void entropy_of_rows(const Problem& problem, const Unit& unit, const Workspace& work) {
  const std::int64_t first = problem.member_begin[unit.cluster], count = problem.member_count(unit.cluster);
  for (std::int64_t r = 0; r < unit.rows; ++r) {
    float* const row = work.scores + r * count;
    const std::int32_t n = problem.order[unit.begin + r];
    const std::int64_t y = problem.position_of_token[problem.target[n]] - first;  // below 0 where a part has it not
    float lse = 0;
    if (problem.lse != nullptr) {
      lse = problem.lse[n];
    } else {
      const RowStatistics found = row_statistics(row, work.bias, count);
      if (problem.statistics != nullptr) {
        float* const out = problem.statistics + 3 * n;
        out[0] = found.maximum, out[1] = found.sum, out[2] = y < 0 ? 0.0f : row[y] + work.bias[y];
        continue;
      }
      const float log_sum = std::log(found.sum);
      problem.nll[n] += (found.maximum - (row[y] + work.bias[y])) + log_sum;
      lse = found.maximum + log_sum;
    }
    if (problem.dh == nullptr) continue;
    row_softmax(row, work.bias, lse, problem.scale, count);
    if (y >= 0) row[y] -= problem.scale;
    row_add(work.dbias, row, 1.0f, count);
  }
}

void add_unit_gradients(const Problem& problem, const Unit& unit, const Workspace& work, float* dtoken_bias) {
  const std::int64_t d = problem.sizes.vector(), count = problem.member_count(unit.cluster);
  const std::int32_t* const members = problem.members + problem.member_begin[unit.cluster];
  for (std::int64_t r = 0; r < unit.rows; ++r) {
    row_add(problem.dh + problem.order[unit.begin + r] * d, work.drows + r * d, 1.0f, d);
  }
  for (std::int64_t w = 0; w < count; ++w) dtoken_bias[members[w]] += work.dbias[w];
}

}  // namespace vqlm::cpu::members
